//! The envelope around a plugin's saved state: the strategy's name and the version of the state.

const MAGIC: &[u8; 8] = b"FLSTATE1";

/// A saved state taken out of its envelope.
#[derive(Debug, PartialEq)]
pub(super) struct Saved<'a> {
    pub(super) state_version: u32,
    pub(super) state: &'a [u8],
}

/// Puts a state into its envelope: magic, state version, length of the name, name, state. A state can be large:
/// it is moved, not copied.
pub(super) fn pack(name: &str, state_version: u32, mut state: Vec<u8>) -> Vec<u8> {
    let mut envelope = MAGIC.to_vec();
    envelope.extend(state_version.to_le_bytes());
    envelope.extend((name.len() as u32).to_le_bytes());
    envelope.extend(name.as_bytes());
    state.splice(0..0, envelope);
    state
}

/// Takes a state of the strategy `name` out of its envelope.
pub(super) fn unpack<'a>(name: &str, packed: &'a [u8]) -> Result<Saved<'a>, String> {
    let torn = || "it is torn or was not written by the lab".to_string();
    let (magic, rest) = packed.split_first_chunk::<8>().ok_or_else(torn)?;
    let (state_version, rest) = rest.split_first_chunk::<4>().ok_or_else(torn)?;
    let (name_len, rest) = rest.split_first_chunk::<4>().ok_or_else(torn)?;
    let name_len = u32::from_le_bytes(*name_len) as usize;
    let (owner, state) = rest.split_at_checked(name_len).ok_or_else(torn)?;
    if magic != MAGIC {
        return Err(torn());
    }
    if owner != name.as_bytes() {
        let owner = String::from_utf8_lossy(owner);
        return Err(format!("it belongs to the strategy `{owner}`"));
    }
    Ok(Saved {
        state_version: u32::from_le_bytes(*state_version),
        state,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else an arm could go on from another strategy's state, or from half of its own.
    #[test]
    fn only_the_owner_of_a_whole_state_gets_it_back() {
        let packed = pack("true-data", 3, b"state".to_vec());
        let expected = Saved {
            state_version: 3,
            state: b"state",
        };
        assert_eq!(unpack("true-data", &packed), Ok(expected));
        assert!(
            unpack("none", &packed)
                .expect_err("other")
                .contains("`true-data`")
        );
        assert!(
            unpack("true-data", &packed[..20])
                .expect_err("torn")
                .contains("torn")
        );
    }
}
