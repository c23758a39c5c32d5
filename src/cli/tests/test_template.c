#include "cli/template.h"

#include <errno.h>
#include <json-c/json_object.h>

#include "base/auto.h"
#include "base/str.h"
#include "base/tests/test.h"
#include "codec/json.h"

static const char data_text[] =
        "{\"ID\":\"abc\",\"Name\":\"/web\",\"N\":3,\"Zero\":0,\"F\":1.5,\"Yes\":true,\"No\":false,"
        "\"Nil\":null,\"State\":{\"Status\":\"running\",\"Pid\":42},"
        "\"List\":[\"a\",\"b\",\"c\"],\"Empty\":[],"
        "\"Labels\":{\"z.k\":\"last\",\"a\":\"first\"},"
        "\"Mounts\":[{\"Src\":\"/x\"},{\"Src\":\"/y\"}]}";

static int label(struct json_object *self, const char *name, const char *argument,
                 struct json_object **ret)
{
        (void)self;
        if (!streq(name, "Label"))
                return -ENOENT;
        *ret = json_object_new_string(argument);
        return 0;
}

static int run(const char *text, struct buf *out, struct err *err)
{
        struct template *template = NULL;
        auto_json data = NULL;
        assert_int_equal(json_parse(data_text, sizeof(data_text) - 1, &data, NULL), 0);
        int r = template_parse(text, &template, err);
        if (r == 0)
                r = template_execute(template, data, label, out, err);
        template_destroy(template);
        return r;
}

static void check(const char *text, const char *wanted)
{
        auto_buf out = { 0 };
        struct err err = { 0 };
        if (run(text, &out, &err) < 0)
                fail_msg("%s: %s", text, err_text(&err));
        if (!streq(buf_text(&out), wanted))
                fail_msg("%s: \"%s\" rather than \"%s\"", text, buf_text(&out), wanted);
}

static void refuse(const char *text, const char *wanted)
{
        auto_buf out = { 0 };
        struct err err = { 0 };
        if (run(text, &out, &err) >= 0)
                fail_msg("%s: \"%s\" rather than an error", text, buf_text(&out));
        if (!strstr(err_text(&err), wanted))
                fail_msg("%s: \"%s\" does not tell \"%s\"", text, err_text(&err), wanted);
}

static void fields_and_text(void **state)
{
        (void)state;
        check("plain", "plain");
        check("", "");
        check("{{.ID}}-{{ .Name }}", "abc-/web");
        check("{{.Id}} {{.state.PID}}", "abc 42");
        check("{{$.ID}} {{(index .Mounts 1).Src}}", "abc /y");
        check("{ {{.N}} }", "{ 3 }");
        check("{{/* nothing */}}x{{- /* and\nnothing */ -}} y", "xy");
        check("{{/* nothing */ }}x", "x");
        check("a {{- .ID -}} b", "aabcb");
        check("a {{ .ID -}} b", "a abcb");
        check("{{.Label \"k\"}}", "k");
}

static void values_print_as_in_go(void **state)
{
        (void)state;
        check("{{.Yes}} {{.No}} {{.F}} {{.Nil}}", "true false 1.5 <nil>");
        check("{{.List}} {{.Empty}}", "[a b c] []");
        check("{{.Labels}}", "map[a:first z.k:last]");
        check("{{.State}}", "map[Pid:42 Status:running]");
        check("{{1.0}} {{\"q\\\"\\n\"}} {{`raw\\`}} {{-7}} {{0x10}}", "1 q\"\n raw\\ -7 16");
}

static void conditions(void **state)
{
        (void)state;
        check("{{if .Yes}}a{{else}}b{{end}}", "a");
        check("{{if .Zero}}a{{else if .Empty}}b{{else if .N}}c{{else}}d{{end}}", "c");
        check("{{if .Missing.Deep}}a{{else}}b{{end}}", "b");
        check("{{if and .Yes (eq .ID \"abc\") (not .No)}}a{{end}}", "a");
        check("{{if or .No .Nil}}a{{else}}b{{end}}", "b");
        check("{{with .State}}{{.Status}} {{$.ID}}{{end}}{{with .Nil}}x{{else}}y{{end}}",
              "running abcy");
        check("{{if eq .N 1 2 3}}in{{end}} {{ne .ID \"x\"}} {{lt .N 4}} {{ge .F 1.5}}",
              "in true true true");
        check("{{eq .ID .N}} {{gt \"b\" \"a\"}}", "false true");
}

static void loops_and_variables(void **state)
{
        (void)state;
        check("{{range .List}}<{{.}}>{{end}}", "<a><b><c>");
        check("{{range $i, $e := .List}}{{$i}}{{$e}} {{end}}", "0a 1b 2c ");
        check("{{range $k, $v := .Labels}}{{$k}}={{$v}};{{end}}", "a=first;z.k=last;");
        check("{{range .Empty}}x{{else}}none{{end}}", "none");
        check("{{range .Mounts}}{{.Src}}{{end}}", "/x/y");
        check("{{range .List}}{{if eq . \"b\"}}{{continue}}{{end}}{{.}}{{end}}", "ac");
        check("{{range .List}}{{if eq . \"b\"}}{{break}}{{end}}{{.}}{{end}}!", "a!");
        check("{{$x := .ID}}{{if .Yes}}{{$x = .Name}}{{end}}{{$x}}", "/web");
        check("{{$x := .ID}}{{if .Yes}}{{$x := .Name}}{{end}}{{$x}}", "abc");
}

static void functions(void **state)
{
        (void)state;
        check("{{json .Labels}} {{json .Name}} {{json .Missing}}",
              "{\"z.k\":\"last\",\"a\":\"first\"} \"/web\" null");
        check("{{index .Labels \"z.k\"}}{{index .Labels \"no\"}}{{index .List 1}}", "lastb");
        check("{{join .List \", \"}} {{len .List}} {{len .ID}}", "a, b, c 3 3");
        check("{{.ID | upper | printf \"%s-%d\" .N}}", "3-%!d(string=ABC)");
        check("{{.ID | upper | printf \"%d-%s\" .N}}", "3-ABC");
        check("{{printf \"%5s|%-5s|%05d|%.2f|%q|%v|%%\" .ID .ID .N .F .ID .List}}",
              "  abc|abc  |00003|1.50|\"abc\"|[a b c]|%");
        check("{{printf \"%s\"}} {{printf \"x\" 1}}", "%!s(MISSING) x%!(EXTRA)");
        check("{{lower \"AbC\"}} {{title \"ab cd\"}} {{truncate .Name 2}} {{pad .ID 1 2}}|",
              "abc Ab Cd /w  abc  |");
        check("{{println .ID .N}}{{print .ID .ID}}{{print 1 2}}", "abc 3\nabcabc1 2");
        check("{{slice .ID 1}} {{slice .List 0 2}} {{split \"a:b\" \":\"}}", "bc [a b] [a b]");
}

static void mistakes(void **state)
{
        (void)state;
        refuse("{{.ID", "unclosed action");
        refuse("a\nb{{.ID", ":2: unclosed action");
        refuse("{{/* x", "unclosed comment");
        refuse("{{}}", "missing value");
        refuse("{{nope .}}", "function \"nope\" not defined");
        refuse("{{if .ID}}x", "unexpected EOF");
        refuse("x{{end}}", "unexpected {{end}}");
        refuse("{{if .}}{{else}}{{else}}{{end}}", "unexpected {{else}}");
        refuse("{{break}}", "outside {{range}}");
        refuse("{{\"x}}", "unclosed action");
        refuse("{{(.ID}}", "unclosed left paren");
        refuse("{{.ID)}}", "unexpected right paren");
        refuse("{{.Missing}}", "map has no entry for key \"Missing\"");
        refuse("{{.ID.Deep}}", "can't evaluate field Deep in type string");
        refuse("{{$x}}", "undefined variable \"$x\"");
        refuse("{{len 3}}", "len of type int64");
        refuse("{{index .List 9}}", "out of range");
        refuse("{{range .N}}{{end}}", "can't iterate");
        refuse("{{join .ID}}", "wrong number of args for join: want 2 got 1");
        refuse("{{.ID \"x\"}}", "can't give argument to non-function ID");
        refuse("{{lt .ID .N}}", "incompatible types");
}

static void nesting_is_bounded(void **state)
{
        (void)state;
        auto_buf deep = { 0 }, parens = { 0 };
        for (int i = 0; i < 1000; i++)
                buf_puts(&deep, "{{if .}}");
        buf_puts(&parens, "{{");
        for (int i = 0; i < 1000; i++)
                buf_putc(&parens, '(');
        buf_puts(&parens, "}}");
        refuse(buf_text(&deep), "nested too deeply");
        refuse(buf_text(&parens), "nested too deeply");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(fields_and_text),    cmocka_unit_test(values_print_as_in_go),
                cmocka_unit_test(conditions),         cmocka_unit_test(loops_and_variables),
                cmocka_unit_test(functions),          cmocka_unit_test(mistakes),
                cmocka_unit_test(nesting_is_bounded),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
