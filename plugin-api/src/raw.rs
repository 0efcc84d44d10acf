//! Reading and writing memory of the host.

use crate::{Error, abi};

/// A borrowed array.
///
/// # Safety
/// `ptr` must lead to `len` values that live as long as `'a`, or be null.
pub(crate) unsafe fn slice<'a, T>(ptr: *const T, len: u64) -> &'a [T] {
    if ptr.is_null() || len == 0 {
        return &[];
    }
    // SAFETY: the caller vouches for pointer, length and life.
    unsafe { std::slice::from_raw_parts(ptr, len as usize) }
}

/// Copies a text; bytes that are not UTF-8 are replaced.
///
/// # Safety
/// As for [`slice`].
pub(crate) unsafe fn text(ptr: *const u8, len: u64) -> String {
    // SAFETY: the caller vouches for pointer, length and life.
    String::from_utf8_lossy(unsafe { slice(ptr, len) }).into_owned()
}

/// Writes a text into the caller's message.
///
/// # Safety
/// `message` must be null or lead to a [`abi::Message`] with a buffer of its capacity.
pub(crate) unsafe fn write_message(message: *mut abi::Message, text: &str) {
    // SAFETY: the caller vouches for the pointer.
    let Some(message) = (unsafe { message.as_mut() }) else {
        return;
    };
    message.len = text.len() as u64;
    let mut fits = text.len().min(message.capacity as usize);
    while !text.is_char_boundary(fits) {
        fits -= 1;
    }
    if !message.text.is_null() {
        // SAFETY: at most `capacity` bytes of the caller's buffer are written.
        unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), message.text, fits) };
    }
}

/// A message buffer of the plugin, for the host to write into.
pub(crate) struct MessageBuffer {
    bytes: Vec<u8>,
    len: u64,
}

impl MessageBuffer {
    /// Makes `call` with an empty message; its status, and the message it wrote.
    pub(crate) fn around(call: impl FnOnce(*mut abi::Message) -> i32) -> (i32, Self) {
        let mut bytes = vec![0; 1024];
        let mut message = abi::Message {
            struct_size: size_of::<abi::Message>() as u64,
            text: bytes.as_mut_ptr(),
            capacity: bytes.len() as u64,
            len: 0,
            reserved: [0; 2],
        };
        let status = call(&mut message);
        let len = message.len.min(bytes.len() as u64);
        (status, Self { bytes, len })
    }

    /// A status as a result, with the message as the error: `true` for [`abi::OK`], `false` for
    /// [`abi::NOTHING`].
    pub(crate) fn result(&self, status: i32, service: &str) -> Result<bool, Error> {
        let text = || String::from_utf8_lossy(&self.bytes[..self.len as usize]).into_owned();
        match status {
            abi::OK => Ok(true),
            abi::NOTHING => Ok(false),
            abi::CANCELLED => Err(Error::Cancelled),
            abi::UNSUPPORTED => Err(Error::Unsupported(text())),
            abi::FAILED => Err(Error::Failed(format!("{service}: {}", text()))),
            other => Err(Error::Failed(format!(
                "{service}: the lab answered with status {other}: {}",
                text()
            ))),
        }
    }
}
