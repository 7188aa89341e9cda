//! The bundled pages, and the headers that keep them from loading or running anything else.

use std::borrow::Cow;

use crate::http::response::Response;

/// A page that is one file, with one script and one style.
pub struct Page {
    html: &'static str,
    /// The hashes of the script and of the style, which `RENEW=1 cargo test --test it app::made` writes.
    script: &'static str,
    style: &'static str,
    /// The directives on the addresses that the page may open WebSockets to and request by HTTP, and on its
    /// workers.
    directives: &'static str,
}

/// The console, whose address can be any server's.
pub const CONSOLE: Page = Page {
    html: include_str!("../../static/client.html"),
    script: "sha256-jt3CvqwcRQQDCPW9AGHZJfu6qnCtpFjSh1AHhGk3zbQ=",
    style: "sha256-mJXFjXZNC7j3uigzRzK3LRRzIkwxCScxRqW05NgI9d8=",
    directives: "connect-src ws: wss: http: https:",
};

/// The page that runs the cases in a browser and shows the verdicts.
// Safari 15 does not count ws: as 'self'.
pub const CASES: Page = Page {
    html: include_str!("../../static/cases.html"),
    script: "sha256-4HTkK4lWV+CHs+z3t7MrymxElCnA/fv+vU5Xu/4BUEY=",
    style: "sha256-EnQ+RK1S5hIUjUr9gAkRHr4QTsBSgLtHynbBaMUaH5Y=",
    directives: "connect-src 'self' ws: wss:; worker-src blob:",
};

impl Page {
    /// The response with the page. Its policy lets a browser run only the page's one script, with a worker
    /// that is a part of it, and apply only its one style.
    pub fn response(&self) -> Response {
        let Page { html, script, style, directives } = self;
        let policy = format!(
            "default-src 'none'; script-src '{script}'; style-src '{style}'; img-src data:; \
             {directives}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        Response { status: 200, headers: vec![], body: Cow::Borrowed(html) }
            .with("Content-Type", "text/html; charset=utf-8")
            .with("Cache-Control", "no-cache")
            .with("Content-Security-Policy", policy)
    }
}
