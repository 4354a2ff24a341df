//! How a client proves that it knows a password (MySQL documentation, "Authentication Methods").

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

use crate::error::{Error, Result};

/// What `caching_sha2_password` says after the scramble.
pub const FAST_ENOUGH: u8 = 3;
/// It wants the password itself.
pub const WHOLE_PASSWORD: u8 = 4;

/// The answer of `plugin` to the server's `nonce`.
///
/// # Errors
/// [`Config`](crate::ErrorKind::Config) when the plugin is not spoken here, or would give the
/// password away.
pub fn answer(plugin: &[u8], nonce: &[u8], password: &str, encrypted: bool) -> Result<Vec<u8>> {
    // The nonce ends in a zero byte that is not part of it.
    let nonce = nonce.get(..20).unwrap_or(nonce);
    if password.is_empty() {
        return Ok(Vec::new());
    }
    match plugin {
        b"mysql_native_password" => {
            let twice = sha1(&[&sha1(&[password.as_bytes()])]);
            Ok(xor(&sha1(&[password.as_bytes()]), &sha1(&[nonce, &twice])))
        }
        b"caching_sha2_password" => {
            let twice = sha256(&[&sha256(&[password.as_bytes()])]);
            Ok(xor(&sha256(&[password.as_bytes()]), &sha256(&[&twice, nonce])))
        }
        b"mysql_clear_password" if encrypted => Ok(whole(password)),
        _ => Err(Error::config("the server asks for a log-in of another kind")
            .with("plugin", String::from_utf8_lossy(plugin))
            .remedy(
                "give the user caching_sha2_password (MySQL) or mysql_native_password (MariaDB), \
                 the servers' own defaults",
            )),
    }
}

/// The password itself, for a server that does not remember it; only ever inside TLS.
///
/// # Errors
/// [`Config`](crate::ErrorKind::Config) when the connection is not encrypted.
pub fn in_full(password: &str, encrypted: bool) -> Result<Vec<u8>> {
    match encrypted {
        true => Ok(whole(password)),
        false => Err(Error::config("the server wants the password itself, and there is no TLS")
            .remedy(
                "leave ssl-mode=disabled out of the source's url, and turn TLS on in the server",
            )),
    }
}

fn whole(password: &str) -> Vec<u8> {
    let mut bytes = password.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

fn sha1(parts: &[&[u8]]) -> Vec<u8> {
    digest(Context::new(&SHA1_FOR_LEGACY_USE_ONLY), parts)
}

fn sha256(parts: &[&[u8]]) -> Vec<u8> {
    digest(Context::new(&SHA256), parts)
}

fn digest(mut context: Context, parts: &[&[u8]]) -> Vec<u8> {
    parts.iter().for_each(|part| context.update(part));
    context.finish().as_ref().to_vec()
}

fn xor(a: &[u8], b: &[u8]) -> Vec<u8> {
    a.iter().zip(b).map(|(a, b)| a ^ b).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the server checks: it stores SHA1(SHA1(password)) and undoes the exclusive or.
    #[test]
    fn the_server_can_check_the_answer_of_the_native_plugin() {
        let nonce: Vec<u8> = (1..=21).collect();
        let sent = answer(b"mysql_native_password", &nonce, "secret", false).unwrap();
        let stored = sha1(&[&sha1(&[b"secret"])]);
        let once = xor(&sent, &sha1(&[&nonce[..20], &stored]));
        assert_eq!(sha1(&[&once]), stored);
    }

    #[test]
    fn a_password_leaves_only_inside_tls() {
        assert!(in_full("secret", false).is_err());
        assert!(answer(b"mysql_clear_password", &[], "secret", false).is_err());
        let error = answer(b"dialog", &[], "secret", true).map_err(|error| error.full());
        assert!(error.is_err_and(|text| !text.contains("secret")));
    }
}
