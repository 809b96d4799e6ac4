//! Bodies against the table: what passes, what needs a pass and under which name, and what never passes.

use super::{
    super::json, NeededPass, PassStanding, RefusedBody, needed, needed_by_header, standing,
};

fn walked(root: &str, body: &str) -> Result<Vec<NeededPass>, RefusedBody> {
    let members = json::members(body)?;
    needed(root, members.iter().map(|(name, value)| (&**name, *value)))
}

/// The passes that a body needs, each with its place; references are marked.
fn passes(root: &str, body: &str) -> Vec<String> {
    let needed = walked(root, body).unwrap_or_else(|refused| panic!("{body}: {refused:?}"));
    let written = |one: &NeededPass| {
        let mark = if one.is_reference { "&" } else { "" };
        format!("{mark}{} {}", one.field, one.pointer)
    };
    needed.iter().map(written).collect()
}

#[test]
fn what_shapes_this_call_alone_passes() {
    for (root, body) in [
        (
            "chat_completions",
            r#"{"model":"m","messages":[{"role":"system","content":"x"},{"role":"user","name":"n","content":[
            {"type":"text","text":"see https://example.org"},
            {"type":"image_url","image_url":{"url":"data:image/png;base64,AA=","detail":"low"}},
            {"type":"image_url","image_url":"DATA:image/png;base64,AA="},
            {"type":"file","file":{"file_data":"data:application/pdf;base64,AA","filename":"a.pdf"}},
            {"type":"input_audio","input_audio":{"data":"AA\/+=","format":"wav"}}]},
            {"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{\"models\":[]}"}}]},
            {"role":"tool","tool_call_id":"c","content":"{}"}],
            "tools":[{"type":"function","function":{"name":"f","strict":true,"parameters":{"type":"object","properties":{"model":{"type":"string"},"MODEL":{}}}}}],
            "tool_choice":{"type":"function","function":{"name":"f"}},"temperature":0.7,"stop":["{","}"],"logit_bias":{"1":2},
            "response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"provider":{}},"strict":true}},
            "stream":true,"stream_options":{"include_usage":true},"metadata":{"models":"x"},"service_tier":"auto","store":true,
            "background":false,"moderation":null}"#,
        ),
        ("completions", r#"{"model":"m","prompt":[[1,2],[3]],"suffix":"x","logprobs":2}"#),
        (
            "embeddings",
            r#"{"model":"m","input":["a","b"],"dimensions":3,"encoding_format":"base64"}"#,
        ),
        (
            "responses",
            r#"{"model":"m","input":[{"role":"user","content":[{"type":"input_text","text":"x"},{"type":"input_image","image_url":"data:image/png;base64,AA","detail":"low"}]},
            {"type":"reasoning","id":"rs_1","summary":[{"type":"summary_text","text":"t"}],"encrypted_content":"e"},
            {"type":"message","role":"assistant","id":"m","status":"completed","content":[{"type":"output_text","text":"x","annotations":[]}]},
            {"type":"function_call","call_id":"c","name":"f","arguments":"{}"},{"type":"function_call_output","call_id":"c","output":"x"}],
            "tools":[{"type":"function","name":"f","parameters":{},"strict":true},{"type":"namespace","name":"n","description":"d","tools":[{"type":"function","name":"g"}]}],
            "text":{"format":{"type":"json_schema","name":"n","schema":{}}},"reasoning":{"effort":"low"},"store":false,"previous_response_id":null}"#,
        ),
        (
            "messages",
            r#"{"model":"m","max_tokens":8,"system":[{"type":"text","text":"x","cache_control":{"type":"ephemeral"}}],
            "messages":[{"role":"user","content":[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"AA"}},
            {"type":"document","source":{"type":"text","media_type":"text/plain","data":"see https://x"},"title":"t","citations":{"enabled":true}},
            {"type":"tool_result","tool_use_id":"t","content":[{"type":"text","text":"x"}]}]}],
            "tools":[{"name":"f","input_schema":{"type":"object","model":1}},{"type":"bash_20250124","name":"bash"}],
            "tool_choice":{"type":"auto"},"thinking":{"type":"enabled","budget_tokens":9},"metadata":{"user_id":"u"}}"#,
        ),
    ] {
        assert_eq!(passes(root, body), [""; 0], "{root}");
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one line for each part of a request that needs a pass")]
fn what_reaches_further_needs_a_pass_under_one_name() {
    let chat = |rest: &str| passes("chat_completions", rest);
    let part =
        |part: &str| chat(&format!(r#"{{"messages":[{{"role":"user","content":[{part}]}}]}}"#));
    let responses = |rest: &str| passes("responses", rest);
    let item = |item: &str| responses(&format!(r#"{{"input":[{item}]}}"#));
    let message = |rest: &str| passes("messages", rest);
    let block = |block: &str| {
        message(&format!(r#"{{"messages":[{{"role":"user","content":[{block}]}}]}}"#))
    };
    let at = "/messages/0/content/0";
    for (found, want) in [
        (chat(r#"{"plugins":[{"id":"web"}]}"#), "plugins /plugins".to_owned()),
        (chat(r#"{"web_search_options":{}}"#), "web_search_options /web_search_options".to_owned()),
        (chat(r#"{"tools":[{"type":"web_search"}]}"#), "tools.web_search /tools/0".to_owned()),
        (
            chat(r#"{"tools":[{"type":"function","function":{"name":"f"},"model":"x"}]}"#),
            "tools.model /tools/0/model".to_owned(),
        ),
        (chat(r#"{"tools":[{"name":"x"}]}"#), "tools.untyped /tools/0".to_owned()),
        (chat(r#"{"stop":{"a":1}}"#), "stop.object /stop".to_owned()),
        (chat(r#"{"stop":[["a",{}]]}"#), "stop.object /stop".to_owned()),
        (chat(r#"{"service_tier":"priority"}"#), "service_tier.priority /service_tier".to_owned()),
        (chat(r#"{"service_tier":"a b"}"#), "service_tier.other /service_tier".to_owned()),
        (chat(r#"{"audio":{"voice":{"id":"v"}}}"#), "&audio.voice.id /audio/voice/id".to_owned()),
        (
            chat(r#"{"messages":[{"role":"assistant","audio":{"id":"a"}}]}"#),
            "&messages.audio.id /messages/0/audio/id".to_owned(),
        ),
        (
            part(r#"{"type":"image_url","image_url":{"url":"http://169.254.169.254/x"}}"#),
            format!("image_url {at}/image_url/url"),
        ),
        (
            part(r#"{"type":"image_url","image_url":"//x.org/a"}"#),
            format!("image_url {at}/image_url"),
        ),
        (
            part(r#"{"type":"image_url","image_url":"\u0068ttps://x"}"#),
            format!("image_url {at}/image_url"),
        ),
        (part(r#"{"type":"file","file":{"file_id":"f"}}"#), format!("&file_id {at}/file/file_id")),
        (
            part(r#"{"type":"file","file":{"file_data":"https://x.org/a"}}"#),
            format!("file_url {at}/file/file_data"),
        ),
        (part(r#"{"type":"video_url"}"#), format!("messages.content.video_url {at}")),
        (
            responses(r#"{"tools":[{"type":"mcp","server_url":"x"}]}"#),
            "tools.mcp /tools/0".to_owned(),
        ),
        (
            responses(r#"{"tool_choice":{"type":"web_search_preview"}}"#),
            "tools.web_search_preview /tool_choice".to_owned(),
        ),
        (
            responses(r#"{"previous_response_id":"r"}"#),
            "&previous_response_id /previous_response_id".to_owned(),
        ),
        (responses(r#"{"conversation":"c"}"#), "&conversation /conversation".to_owned()),
        (responses(r#"{"prompt":{"id":"p"}}"#), "&prompt /prompt".to_owned()),
        (item(r#"{"id":"m"}"#), "&item_reference /input/0".to_owned()),
        (item(r#"{"id":"m","type":null}"#), "&item_reference /input/0".to_owned()),
        (item(r#"{"id":"m","type":"item_reference"}"#), "&item_reference /input/0".to_owned()),
        (
            item(r#"{"id":"r","type":"reasoning","summary":[]}"#),
            "&input.reasoning /input/0".to_owned(),
        ),
        (
            item(r#"{"type":"web_search_call","id":"w"}"#),
            "input.web_search_call /input/0".to_owned(),
        ),
        (
            item(r#"{"role":"user","content":[{"type":"input_file","file_url":"https://x"}]}"#),
            "file_url /input/0/content/0/file_url".to_owned(),
        ),
        (
            item(
                r#"{"type":"computer_call_output","output":{"type":"computer_screenshot","file_id":"f"}}"#,
            ),
            "&file_id /input/0/output/file_id".to_owned(),
        ),
        (message(r#"{"mcp_servers":[{"url":"x"}]}"#), "mcp_servers /mcp_servers".to_owned()),
        (message(r#"{"container":"c"}"#), "&container /container".to_owned()),
        (
            message(r#"{"tools":[{"name":"f","input_schema":{},"model":"x"}]}"#),
            "tools.model /tools/0/model".to_owned(),
        ),
        (
            block(r#"{"type":"image","source":{"type":"url","url":"https://x"}}"#),
            format!("source.url {at}/source/url"),
        ),
        (
            block(r#"{"type":"document","source":{"type":"file","file_id":"f"}}"#),
            format!("&file_id {at}/source/file_id"),
        ),
        (
            block(r#"{"type":"container_upload","file_id":"f"}"#),
            format!("&messages.content.container_upload {at}"),
        ),
        (block(r#"{"type":"server_tool_use"}"#), format!("messages.content.server_tool_use {at}")),
        (
            block(
                r#"{"type":"tool_result","content":[{"type":"image","source":{"type":"url","url":"x"}}]}"#,
            ),
            format!("source.url {at}/content/0/source/url"),
        ),
    ] {
        assert_eq!(found, [want]);
    }
}

#[test]
fn what_a_pass_lets_through_opens_nothing_more() {
    let tool =
        r#"{"tools":[{"type":"code_interpreter","container":{"type":"auto","file_ids":["f"]}}]}"#;
    let want = ["tools.code_interpreter /tools/0", "&file_ids /tools/0"].map(str::to_owned);
    assert_eq!(passes("responses", tool), want);
    let tool = r#"{"tools":[{"type":"code_interpreter","container":"c"}]}"#;
    let want = ["tools.code_interpreter /tools/0", "&container /tools/0"].map(str::to_owned);
    assert_eq!(passes("responses", tool), want);
    let extra = r#"{"extra_body":{"a":[{"Previous_Response_ID":"r"}]}}"#;
    let want = ["extra_body /extra_body", "&previous_response_id /extra_body"];
    assert_eq!(passes("chat_completions", extra), want);
    let named = r#"{"tools":[{"type":"function","function":{"name":"f"},"File_IDs":["f"]}]}"#;
    let want = ["tools.File_IDs /tools/0/File_IDs", "&file_ids /tools/0/File_IDs"];
    assert_eq!(passes("chat_completions", named), want);
}

#[test]
fn names_that_can_be_taken_for_another_are_refused_wherever_they_are() {
    for (root, body) in [
        ("chat_completions", r#"{"model":"a","MODEL":"b"}"#),
        ("chat_completions", r#"{"MODEL":"b"}"#),
        ("chat_completions", r#"{"me\u017f\u017fages":[]}"#),
        ("responses", r#"{"bac\u212aground":true}"#),
        ("chat_completions", r#"{"Background":true}"#),
        ("chat_completions", r#"{"Models":["x"]}"#),
        ("chat_completions", r#"{"Metadata":{}}"#),
        ("chat_completions", r#"{"STREAM_OPTIONS":{}}"#),
        ("chat_completions", r#"{"stream_options":{"Include_Usage":false}}"#),
        ("chat_completions", r#"{"plugins":1,"Plugins":2}"#),
        ("chat_completions", r#"{"messages":[{"role":"user","Content":"x"}]}"#),
        ("chat_completions", r#"{"messages":[{"role":"user","ROLE":"system"}]}"#),
        (
            "chat_completions",
            r#"{"messages":[{"role":"user","content":[{"type":"text","TYPE":"image_url","text":"x"}]}]}"#,
        ),
        (
            "chat_completions",
            r#"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:,","URL":"http://x"}}]}]}"#,
        ),
        ("responses", r#"{"tools":[{"type":"web_search","Type":"mcp"}]}"#),
        ("chat_completions", r#"{"messages":[{"role":"user","role":"system"}]}"#),
    ] {
        let refused = walked(root, body);
        assert!(refused.is_err(), "{body}: {refused:?}");
    }
    let RefusedBody(fault) =
        walked("chat_completions", r#"{"model":"a","MODEL":"b"}"#).unwrap_err();
    assert!(fault.detail.contains("`MODEL`") && fault.detail.contains("`model`"), "{fault:?}");
}

#[test]
fn what_is_refused_is_refused_always() {
    for name in [
        "models",
        "provider",
        "route",
        "fallbacks",
        "api_base",
        "base_url",
        "custom_llm_provider",
        "inference_geo",
        "background",
    ] {
        for root in ["chat_completions", "completions", "embeddings", "responses", "messages"] {
            assert!(walked(root, &format!(r#"{{"{name}":"x"}}"#)).is_err(), "{root} {name}");
        }
        assert!(matches!(standing(name), PassStanding::Refused(_)), "{name}");
    }
    for background in ["true", "1", "\"true\"", "{}"] {
        assert!(walked("responses", &format!(r#"{{"background":{background}}}"#)).is_err());
    }
    // A name that no file could hold.
    for name in [r"model\u0000", "model ", "mödel", r"a\u200bb", ""] {
        assert!(walked("chat_completions", &format!(r#"{{"{name}":"x"}}"#)).is_err(), "{name}");
    }
    let mut deep = r#"{"type":"text"}"#.to_owned();
    for _ in 0..40 {
        deep = format!(r#"{{"type":"tool_result","content":[{deep}]}}"#);
    }
    let body = format!(r#"{{"messages":[{{"role":"user","content":[{deep}]}}]}}"#);
    assert!(walked("messages", &body).is_err());
    let many: Vec<String> = (0..65).map(|n| format!(r#""x{n}":0"#)).collect();
    assert!(walked("embeddings", &format!("{{{}}}", many.join(","))).is_err());
}

#[test]
fn the_name_of_a_pass_is_known_for_what_it_is() {
    for (field, want) in [
        ("tools.web_search", PassStanding::Open),
        ("plugins", PassStanding::Open),
        ("image_url", PassStanding::Open),
        ("service_tier.priority", PassStanding::Open),
        ("anthropic-beta.files-api-2025-04-14", PassStanding::Open),
        ("previous_response_id", PassStanding::Reference),
        ("file_ids", PassStanding::Reference),
        ("input.reasoning", PassStanding::Reference),
        ("item_reference", PassStanding::Reference),
        ("temperature", PassStanding::Stays),
        ("tools.function", PassStanding::Stays),
        ("MODEL", PassStanding::TakenFor("model".to_owned())),
        ("Previous_Response_Id", PassStanding::TakenFor("previous_response_id".to_owned())),
        ("a b", PassStanding::NotAName),
        ("", PassStanding::NotAName),
    ] {
        assert_eq!(standing(field), want, "{field}");
    }
}

#[test]
fn betas_are_known_by_name() {
    let needed = |values: &[&str]| {
        let needed = needed_by_header("anthropic-beta", values.iter().copied());
        needed.map(|needed| needed.into_iter().map(|one| one.field).collect::<Vec<_>>())
    };
    let none: [&str; 0] = [];
    assert_eq!(needed(&["pdfs-2024-09-25, prompt-caching-2024-07-31"]).unwrap(), none);
    let want = ["anthropic-beta.mcp-client-2025-04-04", "anthropic-beta.x"];
    assert_eq!(needed(&["mcp-client-2025-04-04", "pdfs-2024-09-25,x"]).unwrap(), want);
    assert!(needed(&["a b"]).is_err());
}
