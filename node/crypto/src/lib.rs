//! Cryptography for the node: bytes in, bytes out.
//!
//! Owns the cluster secret and the keys derived from it, sealing, MACs, handles, JWS, password hashing and the
//! certificates of the cluster plane. It knows nothing of users, sessions, Raft or HTTP, reads no file and no
//! environment variable, and takes its randomness as an argument. The algorithms are those of aws-lc and argon2; only
//! the framing around them is written by hand.
//!
//! There are two exceptions to "randomness is an argument": aws-lc itself draws the randomness of RSA and P-256 key
//! generation, and the nonces inside ECDSA, RSA-PSS and RSA blinding. It offers no other way.

pub mod aead;
pub mod file_seal;
pub mod handle;
pub mod hex;
pub mod jwk;
pub mod jwks;
pub mod jwt;
pub mod keys;
pub mod mac;
pub mod numeric_date;
pub mod password;
pub mod secret;
pub mod self_signed;
pub mod tls;

mod rsa_der;
