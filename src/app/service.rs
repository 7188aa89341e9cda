//! The state that all connections share.

use std::sync::Arc;

use crate::app::behavior::{Behaviors, Draws};
use crate::app::cases::results::Cases;
use crate::app::settings::Settings;
use crate::buffer::Budget;
use crate::websocket::deflate::Pool;
use crate::websocket::handshake::Policy;

pub struct Service {
    pub settings: Settings,
    pub policy: Policy,
    pub behaviors: Behaviors,
    pub budget: Arc<Budget>,
    pub contexts: Arc<Pool>,
    pub draws: Draws,
    pub cases: Cases,
}
