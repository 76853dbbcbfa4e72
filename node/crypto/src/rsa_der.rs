//! Extracts modulus and exponent from the DER of an RSA public key (RFC 8017 A.1.1), for its JWK. The input comes from
//! aws-lc and is well-formed; anything else is `None`.

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;

/// `(n, e)` big-endian without leading zeros.
pub(super) fn modulus_and_exponent(der: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (body, rest) = element(SEQUENCE, der)?;
    let (n, body) = element(INTEGER, body)?;
    let (e, body) = element(INTEGER, body)?;
    (rest.is_empty() && body.is_empty()).then(|| (unsigned(n), unsigned(e)))
}

/// The content of the first element and what follows it.
fn element(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = length(der.strip_prefix(&[tag])?)?;
    rest.split_at_checked(length)
}

/// The short form of a length, or the long form of one or two bytes: enough for keys of 8192 bits.
fn length(der: &[u8]) -> Option<(usize, &[u8])> {
    match der {
        [short @ 0..=0x7f, rest @ ..] => Some((usize::from(*short), rest)),
        [0x81, length, rest @ ..] => Some((usize::from(*length), rest)),
        [0x82, high, low, rest @ ..] => Some((usize::from(u16::from_be_bytes([*high, *low])), rest)),
        _ => None,
    }
}

/// DER integers are signed: a leading zero keeps a large one positive.
fn unsigned(integer: &[u8]) -> Vec<u8> {
    integer.iter().copied().skip_while(|byte| *byte == 0).collect()
}

#[cfg(test)]
mod tests {
    use super::modulus_and_exponent;

    #[test]
    fn reads_a_key_and_nothing_but_a_key() {
        let der = [0x30, 0x0a, 0x02, 0x03, 0x00, 0xc1, 0x05, 0x02, 0x03, 0x01, 0x00, 0x01];
        assert_eq!(modulus_and_exponent(&der), Some((vec![0xc1, 0x05], vec![1, 0, 1])));
        for cut in 0..der.len() {
            assert_eq!(modulus_and_exponent(&der[..cut]), None);
        }
        assert_eq!(modulus_and_exponent(&[&der[..], &[0]].concat()), None);
    }
}
