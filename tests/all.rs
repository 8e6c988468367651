//! The integration tests, one crate so that it links once.

mod cli; // the binary as its user meets it
mod fake; // `trunkline fake`, in the same way
mod faults; // `trunkline faults`: its flags, its file, its end
mod tunnel; // the whole proxy through the harness, every behaviour on both sides
mod endings; // every way in which a connection ends, 500 times each
mod bulk; // many bytes, and the memory that they do not take
mod limits; // more clients than there is room for
mod workers; // several processes, killed and stopped
mod peers; // what the bench makes of its figures

mod binary;
mod folder;
