//! The header of a GGUF file: metadata and the places of tensors, every number of it held against the file.
//!
//! <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>

use std::collections::{BTreeMap, HashMap};
use std::io::{BufReader, Read, Seek};

use candle_core::Shape;
use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::{TensorInfo, Value};

/// The most elements of all arrays: more than the tokens and merges of any vocabulary.
const MOST_ELEMENTS: u64 = 1 << 24;
/// The most bytes of a text: more than any chat template.
const MOST_TEXT: u64 = 1 << 26;
/// Arrays in arrays.
const MOST_DEPTH: usize = 4;
const MOST_DIMENSIONS: usize = 4;
/// Where tensors begin, unless `general.alignment` says otherwise.
const ALIGNMENT: u64 = 32;

/// What a header says.
pub(super) struct Header {
    pub metadata: HashMap<String, Value>,
    pub tensors: BTreeMap<String, TensorInfo>,
    /// Where the first tensor begins.
    pub data: u64,
}

/// Why a header cannot be used.
pub(super) enum HeaderError {
    /// It is damaged, or none.
    Broken(String),
    /// It is whole, but not for this program.
    Unsupported(String),
}

type Parsed<T> = Result<T, HeaderError>;

fn broken<T>(why: impl Into<String>) -> Parsed<T> {
    Err(HeaderError::Broken(why.into()))
}

impl Header {
    /// Reads the header of a file of `len` bytes.
    ///
    /// # Errors
    /// [`HeaderError`]
    pub fn read(file: impl Read + Seek, len: u64) -> Parsed<Self> {
        let mut parser = Parser {
            reader: BufReader::new(file),
            at: 0,
            len,
            short: false,
            elements: 0,
        };
        if parser.array()? != *b"GGUF" {
            return broken("it does not begin with the magic `GGUF`");
        }
        match parser.u32()? {
            1 => parser.short = true,
            2 | 3 => {}
            other if other & 0xffff == 0 => {
                let why = "its numbers are big-endian; convert it with gguf_convert_endian.py";
                return Err(HeaderError::Unsupported(why.into()));
            }
            other => {
                let why = format!("it is of version {other} of GGUF, which is not read");
                return Err(HeaderError::Unsupported(why));
            }
        }
        let (n_tensors, n_keys) = (parser.length()?, parser.length()?);
        let mut metadata = HashMap::new();
        for _ in 0..n_keys {
            let key = parser.text()?;
            let kind = parser.u32()?;
            let value = parser.value(kind, 0)?;
            if metadata.insert(key.clone(), value).is_some() {
                return broken(format!("its metadata hold `{key}` twice"));
            }
        }
        let mut tensors = BTreeMap::new();
        for _ in 0..n_tensors {
            let name = parser.text()?;
            let info = parser.tensor(&name)?;
            if tensors.insert(name.clone(), info).is_some() {
                return broken(format!("it holds `{name}` twice"));
            }
        }
        let alignment = match metadata.get("general.alignment") {
            None => ALIGNMENT,
            Some(Value::U32(n)) if n.is_power_of_two() => u64::from(*n),
            Some(other) => {
                return broken(format!(
                    "`general.alignment` is {other:?}, not a power of two"
                ));
            }
        };
        let header = Self {
            metadata,
            tensors,
            data: parser.at.next_multiple_of(alignment),
        };
        header.check(len)?;
        Ok(header)
    }

    /// Checks that every tensor lies in the file.
    fn check(&self, len: u64) -> Parsed<()> {
        for (name, info) in &self.tensors {
            let row = info.shape.dims().last().copied().unwrap_or(1);
            let block = info.ggml_dtype.block_size();
            if !row.is_multiple_of(block) {
                let why = format!("rows of {row} numbers are no whole blocks of {block}");
                return broken(format!("`{name}`: {why}"));
            }
            let dims = info.shape.dims().iter();
            let blocks = dims.copied().try_fold(1_usize, usize::checked_mul);
            let size = blocks.and_then(|n| (n / block).checked_mul(info.ggml_dtype.type_size()));
            let end = size.and_then(|size| {
                let start = self.data.checked_add(info.offset)?;
                start.checked_add(size as u64)
            });
            if end.is_none_or(|end| end > len) {
                let why = format!("`{name}` ends beyond its {len} bytes; fetch it again");
                return broken(why);
            }
        }
        Ok(())
    }
}

/// Reads little-endian numbers, none beyond the end of the file.
struct Parser<R> {
    reader: R,
    at: u64,
    len: u64,
    /// Whether lengths have 32 bits, as in version 1.
    short: bool,
    /// Elements of all arrays so far.
    elements: u64,
}

impl<R: Read> Parser<R> {
    fn array<const N: usize>(&mut self) -> Parsed<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Parsed<()> {
        self.at += bytes.len() as u64;
        match self.reader.read_exact(bytes) {
            Ok(()) => Ok(()),
            Err(error) => broken(format!("its header ends early ({error})")),
        }
    }

    fn u32(&mut self) -> Parsed<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Parsed<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A length, or a number of things each of which takes at least a byte.
    fn length(&mut self) -> Parsed<u64> {
        let n = match self.short {
            true => self.u32()?.into(),
            false => self.u64()?,
        };
        let left = self.len.saturating_sub(self.at);
        match n <= left {
            true => Ok(n),
            false => broken(format!(
                "its header announces {n} of what {left} bytes hold"
            )),
        }
    }

    fn text(&mut self) -> Parsed<String> {
        let n = self.length()?;
        if n > MOST_TEXT {
            return broken(format!("a text of its metadata has {n} bytes"));
        }
        let mut bytes = vec![0; n as usize];
        self.fill(&mut bytes)?;
        // In practice some end in zeros, and some are not UTF-8.
        let end = bytes
            .iter()
            .rposition(|&byte| byte != 0)
            .map_or(0, |i| i + 1);
        Ok(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }

    fn value(&mut self, kind: u32, depth: usize) -> Parsed<Value> {
        Ok(match kind {
            0 => Value::U8(u8::from_le_bytes(self.array()?)),
            1 => Value::I8(i8::from_le_bytes(self.array()?)),
            2 => Value::U16(u16::from_le_bytes(self.array()?)),
            3 => Value::I16(i16::from_le_bytes(self.array()?)),
            4 => Value::U32(self.u32()?),
            5 => Value::I32(i32::from_le_bytes(self.array()?)),
            6 => Value::F32(f32::from_le_bytes(self.array()?)),
            7 => match self.array()? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                [other] => return broken(format!("a flag of its metadata is {other}")),
            },
            8 => Value::String(self.text()?),
            9 if depth < MOST_DEPTH => {
                let (kind, n) = (self.u32()?, self.length()?);
                self.elements += n;
                if self.elements > MOST_ELEMENTS {
                    return broken(format!("its metadata hold {} elements", self.elements));
                }
                let elements = (0..n).map(|_| self.value(kind, depth + 1));
                Value::Array(elements.collect::<Parsed<_>>()?)
            }
            9 => return broken("its metadata hold arrays within arrays within arrays"),
            10 => Value::U64(self.u64()?),
            11 => Value::I64(i64::from_le_bytes(self.array()?)),
            12 => Value::F64(f64::from_le_bytes(self.array()?)),
            other => return broken(format!("its metadata hold a value of kind {other}")),
        })
    }

    fn tensor(&mut self, name: &str) -> Parsed<TensorInfo> {
        let n = self.u32()? as usize;
        if n > MOST_DIMENSIONS {
            return broken(format!("`{name}` has {n} dimensions"));
        }
        let mut dims = Vec::new();
        for _ in 0..n {
            let dim = match self.short {
                true => self.u32()?.into(),
                false => self.u64()?,
            };
            match usize::try_from(dim) {
                Ok(dim) if dim > 0 => dims.push(dim),
                _ => return broken(format!("a dimension of `{name}` is {dim}")),
            }
        }
        dims.reverse();
        let ggml_dtype = number_format(name, self.u32()?)?;
        Ok(TensorInfo {
            ggml_dtype,
            shape: Shape::from(dims),
            offset: self.u64()?,
        })
    }
}

/// The number format of a code, by `ggml_type` of ggml.h.
fn number_format(name: &str, code: u32) -> Parsed<GgmlDType> {
    Ok(match code {
        0 => GgmlDType::F32,
        1 => GgmlDType::F16,
        2 => GgmlDType::Q4_0,
        3 => GgmlDType::Q4_1,
        6 => GgmlDType::Q5_0,
        7 => GgmlDType::Q5_1,
        8 => GgmlDType::Q8_0,
        10 => GgmlDType::Q2K,
        11 => GgmlDType::Q3K,
        12 => GgmlDType::Q4K,
        13 => GgmlDType::Q5K,
        14 => GgmlDType::Q6K,
        30 => GgmlDType::BF16,
        other => {
            let named = UNREAD.iter().find(|(code, _)| *code == other);
            let format = match named {
                Some((_, format)) => format!("{format}, a quantisation that is not read here"),
                None => format!("the number format {other}, which is not known here"),
            };
            return Err(HeaderError::Unsupported(format!(
                "`{name}` is stored in {format}; take the file of this model in Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, \
                 Q2_K to Q6_K, F16, BF16 or F32, or its Hugging Face folder"
            )));
        }
    })
}

/// Codes and names of number formats that are not read.
const UNREAD: [(u32, &str); 29] = [
    (4, "Q4_2"),
    (5, "Q4_3"),
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (31, "Q4_0_4_4"),
    (32, "Q4_0_4_8"),
    (33, "Q4_0_8_8"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (36, "IQ4_NL_4_4"),
    (37, "IQ4_NL_4_8"),
    (38, "IQ4_NL_8_8"),
    (39, "MXFP4"),
    (40, "NVFP4"),
    (41, "Q1_0"),
];
