//! What a store says when it refuses a request, as far as it may be repeated.
//!
//! S3 answers a signature that it doesn't take with the request as it understood it: the name of the
//! key and every header, the token of a session among them. `object_store` puts the whole body of
//! such an answer into its error. So no more of it gets as far as that than its code and message.

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};

/// A message is cut off after so many characters.
const LONGEST: usize = 300;

/// Makes clients that cut refusals short.
#[derive(Debug, Default)]
pub(super) struct Discreet(ReqwestConnector);

impl HttpConnector for Discreet {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Client(self.0.connect(options)?)))
    }
}

#[derive(Debug)]
struct Client(HttpClient);

#[async_trait]
impl HttpService for Client {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let response = self.0.execute(request).await?;
        let status = response.status();
        if !status.is_client_error() && !status.is_server_error() {
            return Ok(response);
        }
        let (head, body) = response.into_parts();
        // The status says enough where the rest doesn't arrive.
        let body = body.bytes().await.unwrap_or_default();
        Ok(HttpResponse::from_parts(head, said(&String::from_utf8_lossy(&body)).into()))
    }
}

/// The code and the message of a refusal in the form that S3 gives it; nothing of any other.
fn said(body: &str) -> String {
    let part = |name: &str| {
        let (_, rest) = body.split_once(&format!("<{name}>"))?;
        rest.split_once(&format!("</{name}>")).map(|(part, _)| part)
    };
    let parts: Vec<_> = [part("Code"), part("Message")].into_iter().flatten().collect();
    let text = parts.join(": ");
    let words: Vec<_> = text.split_whitespace().collect();
    words.join(" ").chars().take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_refusal_only_code_and_message_are_repeated() {
        let body = "<?xml version=\"1.0\"?>\n<Error><Code>SignatureDoesNotMatch</Code><Message>The \
                    request signature\n we calculated</Message><AWSAccessKeyId>hunter2\
                    </AWSAccessKeyId><StringToSign>hunter2</StringToSign></Error>";
        assert_eq!(said(body), "SignatureDoesNotMatch: The request signature we calculated");
        assert_eq!(said("<Code>NoSuchKey</Code>"), "NoSuchKey");
        for other in ["", "{\"token\": \"hunter2\"}", "<Code>hunter2", "<html>hunter2</html>"] {
            assert_eq!(said(other), "", "{other}");
        }
        assert_eq!(
            said(&format!("<Message>{}</Message>", "é".repeat(900))).chars().count(),
            LONGEST
        );
    }
}
