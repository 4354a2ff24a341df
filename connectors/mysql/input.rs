//! Bytes as the protocol and the log write them (MySQL documentation, "Protocol Basics").

/// What is left to read. Every method takes something off its front, or says `None` when there is
/// not enough.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// The next `length` bytes.
    #[inline]
    pub fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// The next `N` bytes.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    /// One byte.
    #[inline]
    pub fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    /// Two bytes, least first.
    #[inline]
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    /// Four bytes, least first.
    #[inline]
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes, least first.
    #[inline]
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// `length` bytes (at most 8) as a number, least first.
    #[inline]
    pub fn unsigned(&mut self, length: usize) -> Option<u64> {
        let bytes = self.bytes(length)?;
        let mut whole = [0; 8];
        whole.get_mut(..length)?.copy_from_slice(bytes);
        Some(u64::from_le_bytes(whole))
    }

    /// `length` bytes (at most 8) as a number, greatest first.
    #[inline]
    pub fn unsigned_big(&mut self, length: usize) -> Option<u64> {
        let bytes = self.bytes(length)?;
        let mut whole = [0; 8];
        whole.get_mut(8usize.checked_sub(length)?..)?.copy_from_slice(bytes);
        Some(u64::from_be_bytes(whole))
    }

    /// A length-encoded integer.
    #[inline]
    pub fn length(&mut self) -> Option<u64> {
        match self.u8()? {
            first @ 0..=0xfa => Some(first.into()),
            0xfc => self.u16().map(u64::from),
            0xfd => self.unsigned(3),
            0xfe => self.u64(),
            _ => None,
        }
    }

    /// A length-encoded string.
    #[inline]
    pub fn counted(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.length()?).ok()?;
        self.bytes(length)
    }

    /// A field of a row of the text protocol: `Some(None)` when it is null.
    #[inline]
    pub fn field(&mut self) -> Option<Option<&'a [u8]>> {
        match self.0.first()? {
            0xfb => {
                self.u8()?;
                Some(None)
            }
            _ => self.counted().map(Some),
        }
    }

    /// What stands before the next zero byte, which is taken off too.
    pub fn terminated(&mut self) -> Option<&'a [u8]> {
        let end = memchr::memchr(0, self.0)?;
        let text = self.bytes(end)?;
        self.u8()?;
        Some(text)
    }

    /// Everything left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_length_they_say() {
        let bytes = [0xfa, 0xfc, 1, 2, 0xfd, 1, 2, 3, 0xfe, 1, 0, 0, 0, 0, 0, 0, 0, 0xff];
        let mut input = Input(&bytes);
        let read: Vec<_> = (0..5).map(|_| input.length()).collect();
        assert_eq!(read, [Some(0xfa), Some(0x0201), Some(0x03_0201), Some(1), None]);
        assert_eq!(Input(&[1, 2, 3]).unsigned_big(3), Some(0x01_0203));
        assert_eq!(Input(&[1, 2]).unsigned(3), None);
    }

    #[test]
    fn a_field_may_be_null() {
        let mut input = Input(&[0xfb, 2, b'a', b'b', 3, b'c']);
        assert_eq!(input.field(), Some(None));
        assert_eq!(input.field(), Some(Some(&b"ab"[..])));
        assert_eq!(input.field(), None);
    }
}
