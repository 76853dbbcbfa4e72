//! Polling intervals of devices (RFC 8628 §3.5). They are tracked on each node: polling costs no write. A device whose
//! polls reach several nodes in turn may poll slightly more often, which does no harm.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use conclave_state::ids::DeviceId;

use conclave_base::runtime::Runtime;

/// The increase of the interval for a device that polls too early.
const SLOWER: Duration = Duration::from_secs(5);
/// A slightly early poll is accepted: network delays vary.
const TOLERANCE: Duration = Duration::from_millis(500);
/// Maximum number of devices tracked; beyond it those that polled longest ago are forgotten.
const MAX_REMEMBERED: usize = 10_000;

/// The time of each device's last poll, and its interval.
pub(crate) struct Polls {
    runtime: Runtime,
    devices: Mutex<BTreeMap<DeviceId, (Duration, Duration)>>,
}

impl Polls {
    pub(crate) const fn new(runtime: Runtime) -> Self {
        Self { runtime, devices: Mutex::new(BTreeMap::new()) }
    }

    /// Records a poll; returns false if it is too early.
    pub(crate) fn is_in_time(&self, device: DeviceId, interval: Duration) -> bool {
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

    /// Forgets a device whose request was answered.
    pub(crate) fn forget(&self, device: DeviceId) {
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
