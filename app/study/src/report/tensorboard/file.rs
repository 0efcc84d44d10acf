//! TensorBoard's event files: records of TFRecord, each a message `Event` of TensorFlow's protocol buffers.
//!
//! A record is its length (u64), a checksum of that, the message and a checksum of that; everything is little-endian, and
//! a checksum is a CRC-32C, rotated and shifted ("masked") so that a checksum of checksums stays one. Sources: TensorFlow,
//! `tsl/lib/io/record_writer.h`, `tensorflow/core/util/event.proto`, `tensorflow/core/framework/summary.proto`.

use std::io::{self, Write};

/// What the first record of a file says.
const VERSION: &str = "brain.Event:2";

/// Types of fields on the wire.
const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const BYTES: u64 = 2;
const FIXED_32: u64 = 5;

/// One number at one step.
#[derive(Clone, Debug, PartialEq)]
pub struct Scalar {
    /// Name; what stands before its first slash is its group.
    pub tag: String,
    /// Steps of the arm.
    pub step: u64,
    /// Seconds since the Unix epoch.
    pub time: f64,
    /// The number, of which the file keeps 24 bits.
    pub value: f64,
}

/// Writes a file of scalars, of which the first tells its time.
pub fn write(scalars: &[Scalar], out: &mut dyn Write) -> io::Result<()> {
    let begun = scalars.first().map_or(0.0, |first| first.time);
    let mut version = Message::default();
    version.double(1, begun);
    version.bytes(3, VERSION.as_bytes());
    record(&version, out)?;
    for scalar in scalars {
        let mut value = Message::default();
        value.bytes(1, scalar.tag.as_bytes());
        value.float(2, scalar.value as f32);
        let mut summary = Message::default();
        summary.bytes(1, &value.0);
        let mut event = Message::default();
        event.double(1, scalar.time);
        event.varint(2, scalar.step);
        event.bytes(5, &summary.0);
        record(&event, out)?;
    }
    Ok(())
}

fn record(message: &Message, out: &mut dyn Write) -> io::Result<()> {
    let length = (message.0.len() as u64).to_le_bytes();
    out.write_all(&length)?;
    out.write_all(&masked(crc32c(&length)).to_le_bytes())?;
    out.write_all(&message.0)?;
    out.write_all(&masked(crc32c(&message.0)).to_le_bytes())
}

/// A message of protocol buffers.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn key(&mut self, field: u64, kind: u64) {
        self.number(field << 3 | kind);
    }

    /// Seven bits a byte, the lowest first; all but the last have their highest bit set.
    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn varint(&mut self, field: u64, number: u64) {
        self.key(field, VARINT);
        self.number(number);
    }

    fn double(&mut self, field: u64, number: f64) {
        self.key(field, FIXED_64);
        self.0.extend(number.to_le_bytes());
    }

    fn float(&mut self, field: u64, number: f32) {
        self.key(field, FIXED_32);
        self.0.extend(number.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.key(field, BYTES);
        self.number(bytes.len() as u64);
        self.0.extend(bytes);
    }
}

fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli).
fn crc32c(bytes: &[u8]) -> u32 {
    let crc = bytes.iter().fold(!0, |crc: u32, &byte| {
        CRC_OF_BYTE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8)
    });
    !crc
}

/// The remainder of each byte by the polynomial, its bits in reverse.
const CRC_OF_BYTE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                0x82f6_3b78 ^ (crc >> 1)
            } else {
                crc >> 1
            };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader skips, or refuses, a file whose checksums are of another kind.
    #[test]
    fn checksums_are_those_of_the_standard() {
        // RFC 3720, appendix B.4, and the check value of catalogues.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    /// Every event file that TensorFlow writes begins with these bytes.
    #[test]
    fn a_file_begins_like_those_of_tensorflow() {
        let mut file = Vec::new();
        write(&[], &mut file).unwrap();
        assert_eq!(
            file[..12],
            [0x18, 0, 0, 0, 0, 0, 0, 0, 0xa3, 0x7f, 0x4b, 0x22]
        );
        assert_eq!(file.len(), 12 + 24 + 4);
        assert!(
            file[12..]
                .windows(13)
                .any(|bytes| bytes == b"brain.Event:2")
        );
    }

    /// A step of more than seven bits would be read as another, or as garbage.
    #[test]
    fn long_numbers_are_split_into_groups_of_seven_bits() {
        let mut message = Message::default();
        message.varint(2, 300);
        assert_eq!(message.0, [0x10, 0xac, 0x02]);
    }
}
