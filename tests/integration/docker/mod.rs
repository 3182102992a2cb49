//! Bots in containers of a real Docker engine, which each run of the tests starts for itself: the driver alone, and whole
//! servers that use it. Containers are on the host's network and hold one static program.

mod bad_days;
mod changes;
mod driver;
mod registry;
mod remains;
mod server;
mod workshop;
