//! `[alert]`: who is told when something is wrong.

use std::time::Duration;

use lakeward_connectors::secret::Secret;
use toml::de::DeTable;

use super::lake::duration;
use super::reader::Reader;

/// Lag over this is told, unless the configuration says otherwise.
const LAG: Duration = Duration::from_secs(300);

/// `[alert]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertConfig {
    /// Where messages are posted; its path is often the only key to it.
    pub webhook: Option<Secret>,
    /// Lag over this is told.
    pub lag: Duration,
}

impl Reader<'_> {
    pub(super) fn alert(&mut self, table: &DeTable<'_>) -> AlertConfig {
        self.only("[alert]", table, &["webhook", "lag"]);
        let mut alert = AlertConfig { webhook: None, lag: LAG };
        if let Some(item) = table.get("webhook") {
            alert.webhook = self.secret("alert.webhook", item);
            let url = alert.webhook.as_ref().and_then(|hook| url::Url::parse(hook.reveal()).ok());
            let web = url.is_some_and(|url| matches!(url.scheme(), "http" | "https"));
            if alert.webhook.is_some() && !web {
                let message = "alert.webhook is no web address: write it as \"https://…\"";
                self.fault(item.span().start, message);
            }
        }
        if let Some(item) = table.get("lag") {
            let wanted = "a time such as \"5m\"";
            alert.lag = self.parsed("alert.lag", item, wanted, duration).unwrap_or(LAG);
        }
        alert
    }
}
