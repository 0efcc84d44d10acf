//! Pretrained models of Llama's family and those near it ([`Family`]): a Hugging Face folder, a GGUF file, a model on the hub, or the
//! tiny random one that is built in; and small models of the paper's reference implementation.
//!
//! [`open`] reads what describes a model; [`Pretrained::load`] reads its weights tensor by tensor, so that the
//! peak of memory is the weights and one tensor. [`export`](fn@export) writes a folder that transformers loads.

pub mod builtin;
mod checkpoint;
mod config;
mod error;
mod export;
mod family;
mod gguf;
mod hub;
mod hugging_face;
mod json;
mod keys;
mod model;
mod other_formats;
mod reference_folder;
mod reference_layout;
#[cfg(test)]
mod tests;

pub use checkpoint::Checkpoint;
pub use config::{Description, SpecialIds};
pub use error::{Mismatch, PretrainedError};
pub use export::{Dtype, Export, Exported, export};
pub use family::Family;
pub use gguf::{Gguf, GgufMetadata, GgufValue};
pub use hub::{DownloadProgress, Hub, HubError, RemoteFile, Snapshot, is_hub_id};
pub use hugging_face::{
    from_hugging_face, hugging_face_tensors, hugging_face_views, to_hugging_face,
};
pub use model::{Pretrained, Source, Storage, open};
pub use reference_folder::ReferenceFolder;
pub use reference_layout::{LayoutError, from_reference_layout, to_reference_layout};
