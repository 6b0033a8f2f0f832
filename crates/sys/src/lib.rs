pub mod bpf;
pub mod event;
pub mod terminal;
