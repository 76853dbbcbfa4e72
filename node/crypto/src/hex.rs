//! Bytes as lower-case hex, for fingerprints, request ids and ids in texts.

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Two digits a byte.
pub fn encode(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| pair(*byte)).map(char::from).collect()
}

/// Like [`encode`], without an allocation. `M` must be twice `N`; further digits are 0.
pub fn digits<const N: usize, const M: usize>(bytes: &[u8; N]) -> [u8; M] {
    let mut out = [b'0'; M];
    for (to, byte) in out.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
        *to = pair(*byte);
    }
    out
}

fn pair(byte: u8) -> [u8; 2] {
    [byte >> 4, byte & 0xf].map(|half| DIGITS.get(usize::from(half)).copied().unwrap_or(b'0'))
}

#[cfg(test)]
mod tests {
    #[test]
    fn each_byte_has_two_digits() {
        assert_eq!(super::encode(&[0, 0x0f, 0xff]), "000fff");
        assert_eq!(&super::digits::<3, 6>(&[0, 0x0f, 0xff]), b"000fff");
    }
}
