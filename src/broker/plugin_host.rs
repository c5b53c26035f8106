//! Runs the plugins.

use std::sync::Arc;

use super::auth::Extensions;
use super::config::{Config, ConfigError};
use super::metrics::Metrics;
use super::plugin::{Event, Plugin, PluginContext};

/// The plugins of a broker.
#[derive(Debug)]
pub(crate) struct PluginHost {}

/// Why a plugin does not start.
pub type PluginError = ConfigError;

#[expect(
    clippy::unused_self,
    clippy::unnecessary_wraps,
    reason = "no plugin runs yet"
)]
impl PluginHost {
    pub(crate) fn new(
        _config: &Config,
        _plugins: Vec<Box<dyn Plugin>>,
    ) -> Result<Self, PluginError> {
        Ok(Self {})
    }
    pub(crate) fn extend(&self, _extensions: &mut Extensions) {}
    pub(crate) fn start(&self, _context: Arc<dyn PluginContext>, _metrics: Arc<Metrics>) {}
    pub(crate) fn started(&self) {}
    pub(crate) fn stopping(&self) {}
    pub(crate) fn stop(&self) -> Vec<Box<dyn Plugin>> {
        Vec::new()
    }
    pub(crate) fn names(&self) -> Vec<String> {
        Vec::new()
    }
    pub(crate) fn is_active(&self) -> bool {
        false
    }
    pub(crate) fn wants_messages(&self) -> bool {
        false
    }
    pub(crate) fn wants_packets(&self) -> bool {
        false
    }
    pub(crate) fn fire(&self, _event: Event) {}
}
