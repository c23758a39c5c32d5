#include "base/tests/test.h"

#include <errno.h>

#include "api/filters.h"
#include "base/auto.h"
#include "base/str.h"

static struct filters parse(const char *text)
{
        struct filters f = { 0 };
        struct err err = { 0 };
        if (filters_parse(text, &f, &err) < 0)
                fail_msg("%s: %s", text, err_text(&err));
        return f;
}

static void test_both_wire_forms(void **state)
{
        (void)state;
        const char *forms[] = { "{\"name\":{\"web\":true,\"db\":true,\"old\":false}}",
                                "{\"name\":[\"web\",\"db\"]}" };
        for (size_t i = 0; i < ELEMENTS(forms); i++) {
                auto_filters f = parse(forms[i]);
                assert_true(filters_match(&f, "name", "web"));
                assert_true(filters_match(&f, "name", "db"));
                assert_false(filters_match(&f, "name", "old"));
                assert_false(filters_match(&f, "name", NULL));
                assert_true(filters_match(&f, "id", "anything"));
        }
}

static void test_nothing_given(void **state)
{
        (void)state;
        const char *empty[] = { NULL, "", "{}", "null", "{\"name\":null}", "{\"name\":{}}" };
        for (size_t i = 0; i < ELEMENTS(empty); i++) {
                auto_filters f = parse(empty[i]);
                assert_int_equal(f.length, 0);
                assert_true(filters_match(&f, "name", "web"));
        }
}

static void test_bad_input_is_refused(void **state)
{
        (void)state;
        const char *bad[] = { "x",
                              "[]",
                              "1",
                              "{\"name\":1}",
                              "{\"name\":[1]}",
                              "{\"name\":{\"a\":\"yes\"}}",
                              "{\"name\":[\"a\"]" };
        for (size_t i = 0; i < ELEMENTS(bad); i++) {
                struct filters f = { 0 };
                struct err err = { 0 };
                assert_true(filters_parse(bad[i], &f, &err) < 0);
                assert_int_equal(err.code, EINVAL);
                assert_int_equal(f.length, 0);
        }
        auto_free char *large = xmalloc(FILTERS_SIZE_MAX + 2);
        memset(large, ' ', FILTERS_SIZE_MAX + 1);
        large[FILTERS_SIZE_MAX + 1] = 0;
        struct filters f = { 0 };
        assert_int_equal(filters_parse(large, &f, NULL), -EINVAL);
}

static void test_unknown_key_is_named(void **state)
{
        (void)state;
        static const char *const allowed[] = { "name", "id", NULL };
        auto_filters f = parse("{\"name\":[\"a\"],\"colour\":[\"red\"]}");
        struct err err = { 0 };
        assert_int_equal(filters_check(&f, allowed, &err), -EINVAL);
        assert_string_equal(err_text(&err), "invalid filter 'colour'");
}

static void test_labels(void **state)
{
        (void)state;
        char *labels[] = { (char *)"tier=web", (char *)"empty=", (char *)"v=a=b", NULL };
        const struct {
                const char *text;
                bool matches;
        } cases[] = {
                { "{\"label\":[\"tier\"]}", true },
                { "{\"label\":[\"tier=web\"]}", true },
                { "{\"label\":[\"tier=db\"]}", false },
                { "{\"label\":[\"tier=web\",\"none\"]}", false },
                { "{\"label\":[\"empty\"]}", true },
                { "{\"label\":[\"empty=\"]}", true },
                { "{\"label\":[\"v=a=b\"]}", true },
                { "{\"label!\":[\"tier\"]}", false },
                { "{\"label!\":[\"tier=db\"]}", true },
        };
        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                auto_filters f = parse(cases[i].text);
                assert_int_equal(filters_match_labels(&f, "label", labels), cases[i].matches);
        }
        auto_filters f = parse("{\"label\":[\"tier\"]}");
        assert_false(filters_match_labels(&f, "label", NULL));
}

static void test_patterns(void **state)
{
        (void)state;
        const struct {
                const char *pattern, *value;
                bool matches;
        } cases[] = {
                { "eb", "web", true },       { "^web$", "web", true },  { "^web$", "web2", false },
                { "^/web", "web", false },   { "w.b", "web", true },    { "(", "a(b", true },
                { "(", "ab", false },        { "a{2}", "aa", false },   { "a{2}", "xa{2}", true },
                { "(a)\\\\1", "aa", false }, { "db|web", "web", true },
        };
        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                auto_free char *text = xasprintf("{\"name\":[\"%s\"]}", cases[i].pattern);
                auto_filters f = parse(text);
                if (filters_match_pattern(&f, "name", cases[i].value) != cases[i].matches)
                        fail_msg("%s on %s", cases[i].pattern, cases[i].value);
        }
        auto_filters none = { 0 };
        assert_true(filters_match_pattern(&none, "name", NULL));
}

static void test_booleans(void **state)
{
        (void)state;
        auto_filters f = parse("{\"dangling\":[\"false\"],\"all\":[\"1\"],\"bad\":[\"maybe\"]}");
        bool value = true;
        struct err err = { 0 };
        assert_int_equal(filters_bool(&f, "dangling", &value, &err), 0);
        assert_false(value);
        assert_int_equal(filters_bool(&f, "all", &value, &err), 0);
        assert_true(value);
        assert_int_equal(filters_bool(&f, "absent", &value, &err), 0);
        assert_true(value);
        assert_int_equal(filters_bool(&f, "bad", &value, &err), -EINVAL);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_both_wire_forms),
                cmocka_unit_test(test_nothing_given),
                cmocka_unit_test(test_bad_input_is_refused),
                cmocka_unit_test(test_unknown_key_is_named),
                cmocka_unit_test(test_labels),
                cmocka_unit_test(test_patterns),
                cmocka_unit_test(test_booleans),
        };
        return cmocka_run_group_tests_name("api-filters", tests, NULL, NULL);
}
