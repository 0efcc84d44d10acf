//! The card's memory: addresses that are used once, with nothing behind them but what is allocated.
//!
//! An allocation ends where a page does, so that what is read or written behind it hits a page that nobody may
//! touch; see [`fault`](crate::fault). What is freed is never given out again soon, and nobody may touch it either. New
//! memory is full of bytes 255: a NaN in every format, and a token that no vocabulary has.

use std::collections::{BTreeMap, VecDeque};

use crate::{fault, page};

/// Addresses of the card, bytes. Nothing is behind them until it is allocated.
const ADDRESSES: usize = 1 << 44;
/// What new memory is full of.
const POISON: u8 = 0xff;
/// What a vector load needs, so what an allocation's size is rounded up to.
const ALIGNMENT: usize = 16;
/// Freed allocations that are remembered, for messages.
const REMEMBERED: usize = 4096;

/// What is allocated at an address.
struct Block {
    size: usize,
    /// First page of it, and how many bytes all its pages have.
    first: usize,
    pages: usize,
}

/// Memory of the card.
pub struct Memory {
    start: usize,
    next: usize,
    live: BTreeMap<usize, Block>,
    freed: VecDeque<(usize, usize)>,
    /// What the card says it has, and what it gives, bytes.
    pub total: usize,
    /// Bytes that it gives; not more than it says it has.
    pub gives: usize,
    /// Bytes allocated now, and at most.
    pub used: usize,
    /// The most that was ever allocated, bytes.
    pub peak: usize,
    /// Whether there is memory behind the addresses.
    pub backed: bool,
    /// Allocations after which what is free is in pieces of the wrong size, until they are given back.
    pub whole_for: Option<u64>,
}

/// Why an address cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub enum Bad {
    /// Not an address of the card, or one where nothing ever was.
    Nothing,
    /// What was there is freed.
    Freed {
        /// Its size, bytes.
        size: usize,
    },
    /// It is behind what is allocated, by less than a page.
    Behind {
        /// Bytes from the end to the address.
        by: usize,
        /// Size of what is allocated, bytes.
        size: usize,
    },
    /// More than is allocated there.
    Past {
        /// Bytes from the address to the end.
        left: usize,
        /// Bytes that were wanted.
        wanted: usize,
    },
}

impl std::fmt::Display for Bad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Bad::Nothing => write!(f, "nothing is allocated there"),
            Bad::Freed { size } => write!(f, "the {size} bytes there were freed"),
            Bad::Behind { by, size } => {
                write!(f, "it is {by} bytes behind the end of {size} bytes")
            }
            Bad::Past { left, wanted } => write!(
                f,
                "{wanted} bytes are wanted, {left} are left of what is allocated there"
            ),
        }
    }
}

impl Memory {
    /// A card that says it has `total` bytes, and gives `gives`.
    pub fn new(total: usize, gives: usize, backed: bool) -> Self {
        let start = page::reserve(ADDRESSES);
        fault::watch(start, start + ADDRESSES);
        Self {
            start,
            next: start,
            live: BTreeMap::new(),
            freed: VecDeque::new(),
            total,
            gives,
            used: 0,
            peak: 0,
            backed,
            whole_for: None,
        }
    }

    /// Gives back pieces of the wrong size.
    pub fn trim(&mut self) {
        self.whole_for = self.whole_for.filter(|left| *left > 0);
    }

    /// Bytes of the card for an allocation, as CUDA rounds them.
    fn taken(size: usize) -> usize {
        size.next_multiple_of(512)
    }

    /// Allocates; `None` if the card has no more.
    pub fn allocate(&mut self, size: usize) -> Option<usize> {
        if self.used + Self::taken(size) > self.gives {
            return None;
        }
        if let Some(left) = &mut self.whole_for {
            *left = left.checked_sub(1)?;
        }
        let rounded = size.next_multiple_of(ALIGNMENT);
        let pages = rounded.next_multiple_of(page::SIZE);
        let first = self.room(pages + page::SIZE);
        self.next = first + pages + page::SIZE;
        if self.backed {
            page::open(first, pages);
            // SAFETY: these pages were just opened, and are nobody's yet.
            unsafe { std::ptr::write_bytes(first as *mut u8, POISON, pages) };
        }
        let address = first + pages - rounded;
        self.live.insert(address, Block { size, first, pages });
        self.used += Self::taken(size);
        self.peak = self.peak.max(self.used);
        Some(address)
    }

    /// The next addresses with so many bytes free.
    fn room(&self, bytes: usize) -> usize {
        let end = self.start + ADDRESSES;
        let mut first = self.next;
        if first + bytes > end {
            first = self.start;
        }
        // Once round: what is still live from before is in the way.
        while let Some((_, block)) = self.live.range(first..first + bytes + page::SIZE).next() {
            first = block.first + block.pages + page::SIZE;
            if first + bytes > end {
                first = self.start;
            }
        }
        first
    }

    /// Frees what is allocated at an address; says what was written over its edges.
    ///
    /// # Errors
    /// Nothing is allocated there, or it does not begin there.
    pub fn free(&mut self, address: usize) -> Result<Option<String>, Bad> {
        let Some(block) = self.live.remove(&address) else {
            return Err(match self.check(address, 1) {
                Ok(()) => Bad::Nothing,
                Err(bad) => bad,
            });
        };
        self.used -= Self::taken(block.size);
        let mut overrun = None;
        if self.backed {
            overrun = overrun_of(address, &block);
            page::close(block.first, block.pages);
        }
        if self.freed.len() == REMEMBERED {
            self.freed.pop_front();
        }
        self.freed.push_back((address, block.size));
        Ok(overrun)
    }

    /// Checks that so many bytes from an address on are allocated.
    ///
    /// # Errors
    /// Why they are not.
    pub fn check(&self, address: usize, wanted: usize) -> Result<(), Bad> {
        if let Some((&at, block)) = self.live.range(..=address).next_back()
            && address < at + block.size
        {
            let left = at + block.size - address;
            return match wanted <= left {
                true => Ok(()),
                false => Err(Bad::Past { left, wanted }),
            };
        }
        let was_there = |&&(at, size): &&(usize, usize)| (at..at + size).contains(&address);
        match self.freed.iter().rev().find(was_there) {
            Some(&(_, size)) => Err(Bad::Freed { size }),
            None => Err(self.nearest(address)),
        }
    }

    /// What an address that is nobody's is next to.
    fn nearest(&self, address: usize) -> Bad {
        let before = self.live.range(..address).next_back();
        let behind = before.map(|(at, block)| (address - at - block.size, block.size));
        match behind {
            Some((by, size)) if by < page::SIZE => Bad::Behind { by, size },
            _ => Bad::Nothing,
        }
    }

    /// Whether an address is one of the card's, whatever is there.
    pub fn has(&self, address: usize) -> bool {
        (self.start..self.start + ADDRESSES).contains(&address)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        page::release(self.start, ADDRESSES);
    }
}

/// What was written into the pages of a block beside it, which no page fault tells.
fn overrun_of(address: usize, block: &Block) -> Option<String> {
    let edges = [
        (block.first, address - block.first, "before"),
        (
            address + block.size,
            block.first + block.pages - address - block.size,
            "behind",
        ),
    ];
    edges.into_iter().find_map(|(from, len, side)| {
        // SAFETY: both are in the block's own pages, which are open.
        let edge = unsafe { std::slice::from_raw_parts(from as *const u8, len) };
        let changed = edge.iter().any(|&byte| byte != POISON);
        changed.then(|| {
            format!(
                "something wrote {side} the {} bytes at {address:#x}",
                block.size
            )
        })
    })
}
