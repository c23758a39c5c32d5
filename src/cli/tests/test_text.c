/* Columns, lists and progress: what is shown. */
#include <json-c/json_object.h>

#include "base/auto.h"
#include "base/str.h"
#include "base/tests/test.h"
#include "cli/columns.h"
#include "cli/field.h"
#include "cli/listing.h"
#include "cli/progress.h"
#include "codec/json.h"

static void columns_are_as_wide_as_they_must(void **state)
{
        (void)state;
        auto_buf out = { 0 };
        columns_format(&out, "ID\tNAME\tX\nlonger-than-ten\ta\tb\n", 10, 3);
        assert_string_equal(buf_text(&out), "ID                NAME      X\n"
                                            "longer-than-ten   a         b\n");
}

static void columns_end_where_a_line_has_none(void **state)
{
        (void)state;
        auto_buf out = { 0 };
        columns_format(&out, "a\tb\nccccc\td\nplain\nx\ty", 2, 1);
        assert_string_equal(buf_text(&out), "a     b\nccccc d\nplain\nx y");
}

static void columns_count_characters_not_bytes(void **state)
{
        (void)state;
        auto_buf out = { 0 };
        columns_format(&out, "\xc3\xa9\xc3\xa9\tb\nab\tb\n", 0, 1);
        assert_string_equal(buf_text(&out), "\xc3\xa9\xc3\xa9 b\nab b\n");
}

static void ellipsis(void **state)
{
        (void)state;
        static const struct {
                const char *text;
                size_t length;
                const char *wanted;
        } rows[] = {
                { "short", 10, "short" },
                { "exactly10!", 10, "exactly10!" },
                { "more than ten", 10, "more than\xe2\x80\xa6" },
                { "\xc3\xa9\xc3\xa9\xc3\xa9", 2, "\xc3\xa9\xe2\x80\xa6" },
        };
        for (size_t i = 0; i < ELEMENTS(rows); i++) {
                auto_free char *text = text_ellipsis(rows[i].text, rows[i].length);
                assert_string_equal(text, rows[i].wanted);
        }
}

static const struct heading headings[] = { { "ID", "CONTAINER ID" }, { "Names", "NAMES" }, { 0 } };
static const struct listing listing = { headings, NULL };

static void render(const char *format, const char *wanted)
{
        auto_buf out = { 0 };
        auto_json rows = NULL;
        static const char text[] =
                "[{\"ID\":\"1\",\"Names\":\"web\"},{\"ID\":\"2\",\"Names\":\"db\"}]";
        struct err err = { 0 };
        assert_int_equal(json_parse(text, sizeof(text) - 1, &rows, NULL), 0);
        assert_int_equal(listing_render(&listing, format, "{{.ID}}\t{{.Names}}", rows, &out, &err),
                         0);
        assert_string_equal(buf_text(&out), wanted);
}

static void lists_in_every_format(void **state)
{
        (void)state;
        static const char table[] = "CONTAINER ID   NAMES\n1              web\n2              db\n";
        render(NULL, table);
        render("", table);
        render("table", table);
        render("table {{.Names}}\\t{{.ID}}", "NAMES     CONTAINER ID\nweb       1\ndb        2\n");
        render("{{.Names}}", "web\ndb\n");
        render("json", "{\"ID\":\"1\",\"Names\":\"web\"}\n{\"ID\":\"2\",\"Names\":\"db\"}\n");
}

static void pretty_json(void **state)
{
        (void)state;
        static const char text[] = "{\"a\":[],\"b\":{},\"c\":[1,\"x/y\",null],\"d\":{\"e\":true}}";
        auto_json value = NULL;
        auto_buf out = { 0 };
        assert_int_equal(json_parse(text, sizeof(text) - 1, &value, NULL), 0);
        field_pretty(&out, value);
        assert_string_equal(buf_text(&out), "{\n"
                                            "    \"a\": [],\n"
                                            "    \"b\": {},\n"
                                            "    \"c\": [\n"
                                            "        1,\n"
                                            "        \"x/y\",\n"
                                            "        null\n"
                                            "    ],\n"
                                            "    \"d\": {\n"
                                            "        \"e\": true\n"
                                            "    }\n"
                                            "}");
}

/* --- progress --- */

static int feed(struct progress *progress, const char *text, struct buf *out, struct err *err)
{
        auto_json message = NULL;
        assert_int_equal(json_parse(text, strlen(text), &message, NULL), 0);
        return progress_render(progress, message, out, err);
}

static void plain_progress_is_lines_without_numbers(void **state)
{
        (void)state;
        struct progress progress = { 0 };
        auto_buf out = { 0 };
        feed(&progress, "{\"status\":\"Pulling from x\",\"id\":\"latest\"}", &out, NULL);
        feed(&progress, "{\"status\":\"Pulling fs layer\",\"progressDetail\":{},\"id\":\"aa\"}",
             &out, NULL);
        feed(&progress,
             "{\"status\":\"Downloading\",\"progressDetail\":{\"current\":5,\"total\":9},\"id\":"
             "\"aa\"}",
             &out, NULL);
        feed(&progress, "{\"status\":\"Pull complete\",\"progressDetail\":{},\"id\":\"aa\"}", &out,
             NULL);
        feed(&progress, "{\"stream\":\"Loaded image: x\\n\"}", &out, NULL);
        assert_string_equal(buf_text(&out), "latest: Pulling from x\naa: Pulling fs layer\n"
                                            "aa: Pull complete\nLoaded image: x\n");
        progress_finish(&progress);
}

static void terminal_progress_redraws_its_line(void **state)
{
        (void)state;
        struct progress progress = { .terminal = true, .width = 120 };
        auto_buf out = { 0 };
        feed(&progress, "{\"status\":\"Wait\",\"progressDetail\":{},\"id\":\"aa\"}", &out, NULL);
        feed(&progress, "{\"status\":\"Wait\",\"progressDetail\":{},\"id\":\"bb\"}", &out, NULL);
        assert_string_equal(buf_text(&out),
                            "\n\033[1A\033[2K\raa: Wait \r\033[1B\n\033[1A\033[2K\rbb: Wait "
                            "\r\033[1B");
        buf_reset(&out);
        feed(&progress,
             "{\"status\":\"Get\",\"progressDetail\":{\"current\":1500,\"total\":3000},\"id\":"
             "\"aa\"}",
             &out, NULL);
        assert_string_equal(buf_text(&out),
                            "\033[2A\033[2K\raa: Get [=========================>                  "
                            "       ]    1.5kB/3kB\r\033[2B");
        buf_reset(&out);
        progress.width = 80;
        feed(&progress,
             "{\"status\":\"Get\",\"progressDetail\":{\"current\":4000,\"total\":3000},\"id\":"
             "\"bb\"}",
             &out, NULL);
        assert_string_equal(buf_text(&out), "\033[1A\033[2K\rbb: Get      4kB\r\033[1B");
        progress_finish(&progress);
}

static void errors_in_the_stream_are_errors(void **state)
{
        (void)state;
        struct progress progress = { 0 };
        auto_buf out = { 0 };
        struct err err = { 0 };
        assert_true(feed(&progress, "{\"errorDetail\":{\"message\":\"disk full\"},\"error\":\"x\"}",
                         &out, &err) < 0);
        assert_string_equal(err_text(&err), "disk full");
        assert_int_equal(out.size, 0);
        progress_finish(&progress);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(columns_are_as_wide_as_they_must),
                cmocka_unit_test(columns_end_where_a_line_has_none),
                cmocka_unit_test(columns_count_characters_not_bytes),
                cmocka_unit_test(ellipsis),
                cmocka_unit_test(lists_in_every_format),
                cmocka_unit_test(pretty_json),
                cmocka_unit_test(plain_progress_is_lines_without_numbers),
                cmocka_unit_test(terminal_progress_redraws_its_line),
                cmocka_unit_test(errors_in_the_stream_are_errors),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
