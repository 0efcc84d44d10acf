//! Strategy libraries as a user may meet them: good, foreign, broken and hostile.

mod handshake;
mod lab;
mod libraries;
mod life;
mod looked_at;
mod misbehaviour;
mod written_outside;
