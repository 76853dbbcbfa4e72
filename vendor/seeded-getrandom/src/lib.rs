//! **`getrandom(2)` from a seed**, for programs that simulate: the standard library's hash keys, and what tokio's `select!` draws from
//! them, are then the same for the same seed.
//!
//! The symbol of the C library is defined here, so it holds for every crate of the program that links this one. Until [`seed`] is called
//! it asks the kernel, as ever. Never link it into anything that makes keys: `conclave` does not.
//!
//! The only unsafe code of the workspace, as defining a symbol of C must be.

use std::sync::{Mutex, PoisonError};

static STREAM: Mutex<Option<u64>> = Mutex::new(None);

/// From now on the same bytes follow for the same `seed`, in the order in which they are asked for.
pub fn seed(seed: u64) {
    *STREAM.lock().unwrap_or_else(PoisonError::into_inner) = Some(seed);
}

/// Fills from the seed; false without one.
fn fill_seeded(out: &mut [u8]) -> bool {
    let mut stream = STREAM.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(state) = stream.as_mut() else { return false };
    for chunk in out.chunks_mut(8) {
        // SplitMix64 (Steele, Lea, Flood 2014).
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        chunk.iter_mut().zip((mixed ^ (mixed >> 31)).to_le_bytes()).for_each(|(to, from)| *to = from);
    }
    true
}

/// As in the C library: the count of bytes filled, or -1.
///
/// # Safety
/// `buffer` must be valid for writes of `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, flags: u32) -> isize {
    if buffer.is_null() || length == 0 {
        return 0;
    }
    // SAFETY: the caller promises it, as for the C library's own.
    let out = unsafe { std::slice::from_raw_parts_mut(buffer, length) };
    if fill_seeded(out) {
        return isize::try_from(length).unwrap_or(-1);
    }
    let flags = rustix::rand::GetRandomFlags::from_bits_retain(flags);
    rustix::rand::getrandom(&mut *out, flags).map_or(-1, |filled| isize::try_from(filled).unwrap_or(-1))
}

#[cfg(test)]
mod tests {
    use std::{
        hash::{BuildHasher as _, RandomState},
        thread,
    };

    #[test]
    fn hash_keys_follow_from_the_seed_and_without_one_from_nothing() {
        let draw = || thread::spawn(|| RandomState::new().hash_one(1)).join().unwrap();
        assert_ne!(draw(), draw());
        super::seed(7);
        let first = draw();
        super::seed(7);
        assert_eq!(draw(), first);
        assert_ne!(draw(), first);
    }
}
