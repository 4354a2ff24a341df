//! Base85 in the alphabet of ZeroMQ (RFC 32, "Z85"): how the log writes the bytes of a deletion
//! vector or of its file's name as text.

const ALPHABET: &[u8; 85] =
    b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";

/// Bytes as text; they are filled up with zeros to a multiple of four.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(4) * 5);
    for chunk in bytes.chunks(4) {
        let mut word = [0; 4];
        word[..chunk.len()].copy_from_slice(chunk);
        let word = u32::from_be_bytes(word);
        let digits = [85_u32.pow(4), 85_u32.pow(3), 85_u32.pow(2), 85, 1];
        text.extend(digits.map(|unit| char::from(ALPHABET[(word / unit % 85) as usize])));
    }
    text
}

/// The bytes of a text; `None` when it is no Z85.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(5) {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 5 * 4);
    for chunk in text.as_bytes().chunks(5) {
        let mut word = 0_u32;
        for letter in chunk {
            let digit = ALPHABET.iter().position(|known| known == letter)?;
            word = word.checked_mul(85)?.checked_add(u32::try_from(digit).ok()?)?;
        }
        bytes.extend(word.to_be_bytes());
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_example_of_the_specification() {
        let bytes = [0x86, 0x4F, 0xD2, 0x6F, 0xB5, 0x59, 0xF7, 0x5B];
        assert_eq!(encode(&bytes), "HelloWorld");
        assert_eq!(decode("HelloWorld").as_deref(), Some(&bytes[..]));
    }

    #[test]
    fn what_is_no_z85_is_refused() {
        for text in ["1234", "1234\"", "#####", "123é", "12345é"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn bytes_come_back(mut bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let text = encode(&bytes);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            prop_assert_eq!(decode(&text), Some(bytes));
        }

        #[test]
        fn no_text_is_too_odd(text in ".{0,32}") {
            let _ = decode(&text);
        }
    }
}
