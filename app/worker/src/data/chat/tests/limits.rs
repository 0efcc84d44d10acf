//! Templates that would take the machine: each must end in words, and soon.

use super::*;

/// A template comes with a model that somebody else made; one that hangs or aborts the lab takes every run with it.
#[test]
fn templates_without_end_are_stopped() {
    let many = |text: &str| text.repeat(100_000);
    let nest = |step: &str| {
        format!(
            "{{% set ns = namespace(s=[]) %}}{{% for i in range(99999) %}}{{% for j in range(99) %}}\
             {{% set ns.s = {step} %}}{{% endfor %}}{{% endfor %}}{{{{ ns.s }}}}"
        )
    };
    let three = "{% for i in range(10000) %}";
    let sources = [
        format!("{three}{three}{three}x{}", "{% endfor %}".repeat(3)),
        nest("ns.s + ns.s"),
        "{% set ns = namespace(s='x') %}{% for i in range(40) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}".into(),
        "{% set ns = namespace(s='x') %}{% for i in range(40) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}".into(),
        "{{ 'x' * 10 ** 11 }}".into(),
        "{{ [1] | tojson(indent=10**11) }}".into(),
        "{{ 'a\\nb' | indent(10**11) }}".into(),
        "{{ 'a' | center(10**11) }}{{ 'a'.ljust(10**11) }}".into(),
        "{{ 'a'.zfill(10**11) }}".into(),
        "{{ '{:100000000000}'.format(1) }}".into(),
        "{{ '{:{}}'.format(1, 10**11) }}".into(),
        "{{ '%100000000000d' | format(1) }}".into(),
        "{{ [1] | slice(10**12) | list }}".into(),
        "{{ [1] | batch(10**12, 1) | list }}".into(),
        "{{ range(10**12) | list }}".into(),
        "{{ ('a' * 10**6).replace('a', 'b' * 10**6) }}".into(),
        "{{ ('a' * 10**6).join(range(10**5) | map('string')) }}".into(),
        "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}".into(),
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}".into(),
        format!("{{{{ {}1 }}}}", many("1+")),
        format!("{{{{ {}1{} }}}}", many("("), many(")")),
        format!("{{{{ {}1{} }}}}", many("["), many("]")),
        format!("{}{}", "{% if 1 %}".repeat(9000), "{% endif %}".repeat(9000)),
        nest("[ns.s]"),
        nest("{'a': ns.s}"),
        nest(&format!("{}ns.s{}", "[".repeat(100), "]".repeat(100))),
        nest("[ns.s]").replace("{{ ns.s }}", "{{ ns.s | tojson }}").replace("99999", "999"),
        "{% set ns = namespace(s=1) %}{% set ns.s = ns %}{{ ns.s | tojson }}".into(),
        " ".repeat(300 << 10),
    ];
    for source in sources {
        let shown: String = source.chars().take(100).collect();
        let date = NaiveDate::default();
        let said = [Message::new("user", "q")];
        let rendered =
            Template::new(&source, Vec::new(), date).and_then(|t| t.render(&said, false));
        match rendered {
            Err(ChatError::Template { problem }) => assert!(!problem.is_empty(), "{shown}"),
            other => panic!("{shown}: {:?}", other.map(|text| text.len())),
        }
    }
}

/// Expressions as deep as a template may hold must be compiled, or refused, without a stack that overflows.
#[test]
fn deep_expressions_end_in_words_or_in_text() {
    let fill = |piece: &str| piece.repeat((8 << 10) / piece.len() - 4);
    let sources = [
        format!("{{{{ {}1 }}}}", fill("1+")),
        format!("{{{{ {}1 }}}}", fill("-")),
        format!("{{{{ {}1 }}}}", fill("not ")),
        format!("{{{{ {}1 }}}}", fill("1~")),
        format!("{{{{ {}1 }}}}", fill("1 and ")),
        format!("{{{{ 1{} }}}}", fill("|e")),
        format!("{{{{ a{} }}}}", fill(".b")),
        format!("{{{{ a{} }}}}", fill("()")),
        format!("{{{{ {}1 }}}}", fill("1 if 1 else ")),
        format!("{{% if 0 %}}{}{{% endif %}}", "{%elif 0%}".repeat(25_000)),
    ];
    for source in sources {
        let compiled = Template::new(&source, Vec::new(), NaiveDate::default());
        // Whichever it is, the test is still there to say so.
        let _ = compiled.and_then(|t| t.render(&[Message::new("user", "q")], false));
    }
}

/// A list of nothing that is added to itself again and again is a list of nothing, and must not take a year.
#[test]
fn sums_of_lists_are_as_long_as_they_are() {
    let again = |text: &str, n: usize| text.repeat(n);
    let sources = [
        "{% macro f(x, n) %}{{ f(x + x, n - 1) if n else x | length }}{% endmacro %}{{ f([], 40) }}".into(),
        format!("{{% with a = [], {} a = a %}}{{{{ a | length }}}}{{% endwith %}}", again("a = a + a,", 99)),
        format!("{{% set a = [] %}}{}{{{{ a | length }}}}", again("{% set a = a + a %}", 99)),
        format!("{{% set a = [[]] %}}{}{{{{ a[0] | length }}}}", again("{% set a = [a[0] + a[0]] %}", 99)),
        format!("{{% set a = {{'b': []}} %}}{}{{{{ a.b | length }}}}", again("{% set a = {'b': a.b + a.b} %}", 99)),
        format!("{{% set a = ([], 1) %}}{}{{{{ a[0] | length }}}}", again("{% set a = (a[0] + a[0], 1) %}", 99)),
        format!("{{% set a = namespace(b=[]) %}}{}{{{{ a.b | length }}}}", again("{% set a = namespace(b=a.b + a.b) %}", 99)),
        "{% for x in [[]] recursive %}{{ loop([x + x]) if loop.depth < 60 else x | length }}{% endfor %}".into(),
        format!("{}{{{{ a | length }}}}{}", "{% set a = [] %}".to_owned() + &again("{% for a in [a + a] %}", 60), again("{% endfor %}", 60)),
        "{% macro g(x, n) %}{{ caller(x + x, n - 1) if n else x | length }}{% endmacro %}{% macro h(x, n) %}{% call(y, m) g(x, n) %}{{ h(y, m) }}{% endcall %}{% endmacro %}{{ h([], 12) }}".into(),
    ];
    for source in sources {
        let shown: String = source.chars().take(120).collect();
        let template = Template::new(&source, Vec::new(), NaiveDate::default());
        let text = template.and_then(|t| t.render(&[Message::new("user", "q")], false));
        assert_eq!(text.map_err(|e| e.to_string()), Ok("0".into()), "{shown}");
    }
    // What stands in them stays.
    let source = "{% macro f(x, y='a, b') %}{{ x }}{{ y }}{% endmacro %}{{ f([1] + [2]) }}\
                  {% with a = [1] + [2], b = 'c=d, e' %}{{ a }}{{ b }}{% endwith %}\
                  {% for a, b in [(1, 2)] + [(3, 4)] -%}  {{ a }}{{ b }}{% endfor %}";
    let template = Template::new(source, Vec::new(), NaiveDate::default());
    let text = template.and_then(|t| t.render(&[Message::new("user", "q")], false));
    assert_eq!(text.unwrap(), "[1, 2]a, b[1, 2]c=d, e1234");
}
