//! The server without a hub or a dialect: real sockets on one side, a scripted session on the other.

#![cfg(test)]

#[path = "../common/mod.rs"]
mod common;
mod http;
mod monitor;
mod parrot;
mod rig;
mod sockjs;
mod tls;
mod websocket;
