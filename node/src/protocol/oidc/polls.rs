//! How often a device asks (RFC 8628 §3.5). Counted on the node that is asked: polling costs no write, and a device
//! that is sent to several nodes in turn may ask a little oftener, which hurts nobody.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use conclave_state::ids::DeviceId;

use conclave_base::runtime::Runtime;

/// What a device that asks too soon must wait longer from then on.
const SLOWER: Duration = Duration::from_secs(5);
/// A little earlier is in time: networks are uneven.
const TOLERANCE: Duration = Duration::from_millis(500);
/// Most devices remembered; beyond, those that asked longest ago are forgotten.
const MAX_REMEMBERED: usize = 10_000;

/// When each device asked last, and how long it must wait in between.
pub struct Polls {
    runtime: Runtime,
    devices: Mutex<BTreeMap<DeviceId, (Duration, Duration)>>,
}

impl Polls {
    pub const fn new(runtime: Runtime) -> Self {
        Self { runtime, devices: Mutex::new(BTreeMap::new()) }
    }

    /// Counts a question; false when it comes too soon.
    pub fn is_in_time(&self, device: DeviceId, interval: Duration) -> bool {
        let now = self.runtime.clock.monotonic();
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((last, pause)) = devices.get_mut(&device) else {
            make_room(&mut devices);
            devices.insert(device, (now, interval));
            return true;
        };
        let in_time = now.saturating_sub(*last) + TOLERANCE >= *pause;
        if !in_time {
            *pause += SLOWER;
        }
        *last = now;
        in_time
    }

    /// The device has its answer.
    pub fn forget(&self, device: DeviceId) {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner).remove(&device);
    }
}

fn make_room(devices: &mut BTreeMap<DeviceId, (Duration, Duration)>) {
    if devices.len() < MAX_REMEMBERED {
        return;
    }
    let oldest = devices.iter().min_by_key(|(_, (last, _))| *last).map(|(device, _)| *device);
    if let Some(device) = oldest {
        devices.remove(&device);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_asks_too_soon_must_wait_longer() {
        let (runtime, clock) = conclave_base::runtime::testing::runtime(1_000, 1);
        let polls = Polls::new(runtime);
        let (one, five) = (DeviceId::new([1; 16]), Duration::from_secs(5));
        assert!(polls.is_in_time(one, five), "the first");
        clock.advance(five);
        assert!(polls.is_in_time(one, five), "in time");
        clock.advance(Duration::from_secs(1));
        assert!(!polls.is_in_time(one, five), "too soon");
        clock.advance(five);
        assert!(!polls.is_in_time(one, five), "five is not enough any more");
        clock.advance(Duration::from_secs(15));
        assert!(polls.is_in_time(one, five));
        assert!(polls.is_in_time(DeviceId::new([2; 16]), five), "another device");
    }
}
