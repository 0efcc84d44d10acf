//! Checksums that a JSON object carries at its own end, so that it stays JSON: `{…,"c":"0a1b2c3d"}`.

use serde::{Deserialize, Serialize};

/// What stands between an object's content and its checksum.
const OPEN: &[u8] = br#","c":""#;
/// What stands behind the checksum.
const CLOSE: &[u8] = br#""}"#;
/// Digits of a CRC-32.
const DIGITS: usize = 8;

/// CRC-32 of the lines of a file so far, without what separates them and without their checksums.
///
/// A line's checksum covers every line before it, so that one that is lost, repeated, moved or changed does not fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain(pub u32);

impl Chain {
    /// The same, with one more line's content.
    pub fn after(self, content: &[u8]) -> Self {
        let mut hasher = crc32fast::Hasher::new_with_initial(self.0);
        hasher.update(content);
        Self(hasher.finalize())
    }

    /// Puts the checksum of a JSON object that ends in `}` at its end, and goes on behind it.
    pub fn seal(self, object: &mut Vec<u8>) -> Self {
        object.pop();
        let after = self.after(object);
        object.extend_from_slice(OPEN);
        object.extend_from_slice(format!("{:08x}", after.0).as_bytes());
        object.extend_from_slice(CLOSE);
        after
    }
}

/// Content and checksum of an object that [`Chain::seal`] has ended; `None` where it has no checksum.
pub fn sealed(line: &[u8]) -> Option<(&[u8], Chain)> {
    let rest = line.strip_suffix(CLOSE)?;
    let (rest, digits) = rest.split_at_checked(rest.len().checked_sub(DIGITS)?)?;
    let content = rest.strip_suffix(OPEN)?;
    let lower = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    let digits = std::str::from_utf8(digits).ok()?;
    let value = digits
        .bytes()
        .all(|byte| lower(&byte))
        .then(|| u32::from_str_radix(digits, 16));
    Some((content, Chain(value?.ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(chain: Chain, text: &str) -> (Vec<u8>, Chain) {
        let mut line = text.as_bytes().to_vec();
        let after = chain.seal(&mut line);
        (line, after)
    }

    /// Scripts read the events as JSON, line by line.
    #[test]
    fn a_sealed_object_is_json_and_opens_to_what_it_was() {
        let (first, after) = line(Chain::default(), r#"{"a":1}"#);
        let value: serde_json::Value = serde_json::from_slice(&first).unwrap();
        assert_eq!(value["a"], 1);
        assert_eq!(first.len(), r#"{"a":1}"#.len() + 15);
        let (content, found) = sealed(&first).unwrap();
        assert_eq!((content, found), (&br#"{"a":1"#[..], after));
        assert_eq!(Chain::default().after(content), after);
        for other in [&b""[..], b"}", b"{\"a\":1}", br#"{"c":"0a1b2c3g"}"#] {
            assert_eq!(sealed(other), None);
        }
    }

    /// A changed digit or a lost line would be a wrong figure in a paper.
    #[test]
    fn no_single_change_and_no_lost_line_fits() {
        let (first, after) = line(Chain::default(), r#"{"a":1.25}"#);
        let (second, _) = line(after, r#"{"a":1.25}"#);
        let fits = |before: Chain, line: &[u8]| {
            sealed(line).is_some_and(|(content, found)| before.after(content) == found)
        };
        assert!(fits(after, &second) && !fits(Chain::default(), &second) && !fits(after, &first));
        for at in 0..first.len() {
            for bit in 0..8 {
                let mut changed = first.clone();
                changed[at] ^= 1 << bit;
                assert!(!fits(Chain::default(), &changed), "bit {bit} of byte {at}");
            }
        }
    }
}
