//! Files that are often where weights should be.

/// What a file that begins with `head` is, if it is one of those.
pub(super) fn for_weights(head: &[u8]) -> Option<&'static str> {
    let text = String::from_utf8_lossy(&head[..head.len().min(64)]);
    let text = text.trim_start().to_ascii_lowercase();
    let page = ["<!doctype", "<html", "<head", "<?xml"];
    match () {
        () if text.starts_with("version https://git-lfs") => {
            Some("it is a Git LFS pointer: a few lines of text in place of the weights")
        }
        () if page.iter().any(|start| text.starts_with(start)) => {
            Some("it is a web page in place of the weights")
        }
        () => None,
    }
}

/// What helps where a `cause` is one of those.
pub(super) fn help(cause: &str) -> Option<&'static str> {
    match () {
        () if cause.contains("Git LFS pointer") => {
            Some("fetch the file itself: git lfs pull, or the hub's download link")
        }
        () if cause.contains("a web page") => {
            Some("download the file itself: the raw or download link, not the page that shows it")
        }
        () => None,
    }
}
