//! Bots as applications of an emulated Coolify: every oddity of the real one that the driver handles, bad days, and a crowd.
//! Whatever a test made the driver send is checked against Coolify's published description when the test ends.

mod bad_days;
mod crowd;
mod images;
mod life;
mod oddities;
mod openapi;
mod probe;
mod server;
mod workshop;
