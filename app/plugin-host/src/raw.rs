//! Reading and writing the memory of a plugin.

use forgetlab_plugin_api::abi;

use super::{ServiceError, lent::Lent, services::failed};

/// A borrowed array.
///
/// # Safety
/// `ptr` must lead to `len` values that live as long as `'a`, or be null.
pub(super) unsafe fn slice<'a, T>(ptr: *const T, len: u64) -> &'a [T] {
    if ptr.is_null() || len == 0 {
        return &[];
    }
    // SAFETY: the caller vouches for pointer, length and life.
    unsafe { std::slice::from_raw_parts(ptr, len as usize) }
}

/// A struct of the plugin to read, if it is there and as large as this version needs.
///
/// # Safety
/// `raw` must be null or lead to a struct that begins with its size and stays unchanged for `'a`.
pub(super) unsafe fn sized<'a, T>(raw: *const T, what: &str) -> Result<&'a T, ServiceError> {
    // SAFETY: the caller vouches for the struct.
    unsafe { check_size(raw, what)? };
    // SAFETY: pointer and size were checked, and the plugin lends the struct for the call.
    Ok(unsafe { &*raw })
}

/// As [`sized`], a struct to write.
///
/// # Safety
/// `raw` must be null or lead to a struct that begins with its size and is the caller's alone for `'a`.
pub(super) unsafe fn sized_mut<'a, T>(raw: *mut T, what: &str) -> Result<&'a mut T, ServiceError> {
    // SAFETY: the caller vouches for the struct.
    unsafe { check_size(raw, what)? };
    // SAFETY: pointer and size were checked, and the plugin lends the struct for the call.
    Ok(unsafe { &mut *raw })
}

/// Checks a pointer to a struct and the size the struct says it has.
///
/// # Safety
/// `raw` must be null or lead to a struct that begins with its size.
unsafe fn check_size<T>(raw: *const T, what: &str) -> Result<(), ServiceError> {
    if raw.is_null() || !raw.is_aligned() {
        return Err(failed(format!("{what} is a null or misaligned pointer")));
    }
    // SAFETY: every struct of the ABI begins with its size.
    let size = unsafe { *raw.cast::<u64>() };
    if size < size_of::<T>() as u64 {
        let needed = size_of::<T>();
        return Err(failed(format!(
            "{what} says struct_size {size}, {needed} is needed"
        )));
    }
    Ok(())
}

/// An array of the plugin.
///
/// # Safety
/// `ptr` must be null or lead to `len` values.
pub(super) unsafe fn array<'a, T>(
    ptr: *const T,
    len: u64,
    what: &str,
) -> Result<&'a [T], ServiceError> {
    if len > abi::MAX_ELEMENTS || (len > 0 && (ptr.is_null() || !ptr.is_aligned())) {
        return Err(failed(format!(
            "{what}: {len} elements at {ptr:?} are no array"
        )));
    }
    // SAFETY: the caller vouches for pointer and length.
    Ok(unsafe { slice(ptr, len) })
}

/// Copies an array into a plugin's buffer; a null buffer is not written.
///
/// # Safety
/// `to` must be null or have room for `from`.
pub(super) unsafe fn copy<T: Copy>(from: &[T], to: *mut T) {
    if !to.is_null() && !from.is_empty() {
        // SAFETY: the caller vouches for the room.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) };
    }
}

/// Copies an array into a plugin's buffer and writes the length needed; a status, [`abi::RETRY`] where
/// the buffer is too small.
///
/// # Safety
/// `out` must be null or have room for `capacity` values, `needed` be null or writable.
pub(super) unsafe fn copy_within<T: Copy>(
    from: &[T],
    out: *mut T,
    capacity: u64,
    needed: *mut u64,
) -> i32 {
    let len = from.len() as u64;
    // SAFETY: the caller vouches for the pointers; the capacity is compared first.
    unsafe {
        copy(&[len], needed);
        if len > capacity {
            return abi::RETRY;
        }
        copy(from, out);
    }
    abi::OK
}

/// Writes a text into a plugin's message.
///
/// # Safety
/// `message` must be null or lead to a message with a buffer of its capacity.
pub(super) unsafe fn write_message(message: *mut abi::Message, text: &str) {
    // SAFETY: the caller vouches for the pointer.
    let Some(message) = (unsafe { message.as_mut() }) else {
        return;
    };
    message.len = text.len() as u64;
    let fits = text.floor_char_boundary(message.capacity.min(text.len() as u64) as usize);
    // SAFETY: at most `capacity` bytes of the plugin's buffer are written.
    unsafe { copy(&text.as_bytes()[..fits], message.text) };
}

/// A message buffer of the host, for a plugin to write into; used again for each call.
pub(super) struct MessageBuffer {
    bytes: Lent<u8>,
    raw: abi::Message,
}

impl Default for MessageBuffer {
    /// A buffer without room, which [`MessageBuffer::clear`] makes.
    fn default() -> Self {
        let raw = abi::Message {
            struct_size: size_of::<abi::Message>() as u64,
            text: std::ptr::null_mut(),
            capacity: 0,
            len: 0,
            reserved: [0; 2],
        };
        Self {
            bytes: Lent::default(),
            raw,
        }
    }
}

impl MessageBuffer {
    /// Makes it empty. Without memory it has no room: a message is cut, as any that is too long.
    pub(super) fn clear(&mut self) {
        let room = self.bytes.fill(abi::MAX_TEXT as usize, 0).is_ok();
        self.raw = abi::Message {
            text: self.bytes.as_mut_ptr(),
            capacity: if room { abi::MAX_TEXT } else { 0 },
            ..Self::default().raw
        };
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut abi::Message {
        &mut self.raw
    }

    /// Whether the plugin wrote past its end; see [`Lent::overrun`].
    pub(super) fn overrun(&self) -> bool {
        self.bytes.overrun()
    }

    /// The text written, on one line. The plugin may have changed `raw`, but not our buffer's length.
    pub(super) fn text(&self) -> String {
        let len = (self.raw.len as usize).min(self.bytes.len());
        match self.bytes[..len].trim_ascii() {
            b"" => "it gave no reason".into(),
            text => one_line(text),
        }
    }
}

/// A text of a plugin, on one line and without terminal controls.
pub(super) fn one_line(bytes: &[u8]) -> String {
    forgetlab_study::printed::one_line(&String::from_utf8_lossy(bytes)).into_owned()
}
