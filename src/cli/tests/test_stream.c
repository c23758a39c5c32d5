/* Detach keys, names of images, base64. */
#include <stdlib.h>

#include "base/auto.h"
#include "base/str.h"
#include "base/tests/test.h"
#include "cli/credentials.h"
#include "cli/detach.h"
#include "cli/reference.h"

/* --- detach --- */

static void keys_are_parsed(void **state)
{
        (void)state;
        struct detach detach;
        assert_int_equal(detach_parse(NULL, &detach, NULL), 0);
        assert_int_equal(detach.length, 2);
        assert_int_equal(detach.keys[0], 16);
        assert_int_equal(detach.keys[1], 17);
        assert_int_equal(detach_parse("ctrl-@,a,ctrl-_,ctrl-z", &detach, NULL), 0);
        assert_int_equal(detach.length, 4);
        assert_memory_equal(detach.keys, "\0a\37\32", 4);
        static const char *const bad[] = { "ctrl-", "ctrl-A", "ab", "a,,b", "ctrl-ab" };
        for (size_t i = 0; i < ELEMENTS(bad); i++)
                assert_true(detach_parse(bad[i], &detach, NULL) < 0);
}

static void type(struct detach *detach, const char *keys, bool done, const char *wanted)
{
        auto_buf out = { 0 };
        assert_int_equal(detach_filter(detach, keys, strlen(keys), &out), done);
        assert_string_equal(buf_text(&out), wanted);
}

static void keys_leave_the_terminal(void **state)
{
        (void)state;
        struct detach detach;
        detach_parse(NULL, &detach, NULL);
        type(&detach, "ab", false, "ab");
        type(&detach, "\20", false, "");
        type(&detach, "x", false, "\20x");
        type(&detach, "\20\20", false, "\20");
        type(&detach, "\21 dropped", true, "");
}

/* --- names --- */

static void names_of_images(void **state)
{
        (void)state;
        static const struct {
                const char *text, *domain, *path, *full;
        } rows[] = {
                { "busybox", "docker.io", "library/busybox", "busybox:latest" },
                { "a/b:t", "docker.io", "a/b", "a/b:t" },
                { "docker.io/library/x", "docker.io", "library/x", "x:latest" },
                { "index.docker.io/x", "docker.io", "library/x", "x:latest" },
                { "localhost:5000/a/b__c.d-e:1.0", "localhost:5000", "a/b__c.d-e",
                  "localhost:5000/a/b__c.d-e:1.0" },
                { "localhost/x", "localhost", "x", "localhost/x:latest" },
                { "x@sha256:"
                  "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                  "docker.io", "library/x",
                  "x@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" },
        };
        for (size_t i = 0; i < ELEMENTS(rows); i++) {
                auto_image_name name = { 0 };
                assert_int_equal(image_name_parse(rows[i].text, &name, NULL), 0);
                assert_string_equal(name.domain, rows[i].domain);
                assert_string_equal(name.path, rows[i].path);
                auto_free char *full = image_name_full(&name);
                assert_string_equal(full, rows[i].full);
        }
}

static void bad_names_of_images(void **state)
{
        (void)state;
        static const struct {
                const char *text, *wanted;
        } rows[] = {
                { "", "invalid reference format" },
                { "B", "invalid reference format: repository name (library/B) must be lowercase" },
                { "a//b", "invalid reference format" },
                { "a:", "invalid reference format" },
                { "a b", "invalid reference format" },
                { "-a", "invalid reference format" },
                { "a@sha256:12", "invalid reference format" },
                { "a.b:c/d", "invalid reference format" },
                { "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                  "invalid repository name "
                  "(e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855), cannot "
                  "specify 64-byte hexadecimal strings" },
        };
        for (size_t i = 0; i < ELEMENTS(rows); i++) {
                auto_image_name name = { 0 };
                struct err err = { 0 };
                assert_true(image_name_parse(rows[i].text, &name, &err) < 0);
                assert_string_equal(err_text(&err), rows[i].wanted);
        }
}

static void base64_both_ways(void **state)
{
        (void)state;
        static const struct {
                const char *plain, *encoded;
        } rows[] = { { "", "" },
                     { "f", "Zg==" },
                     { "fo", "Zm8=" },
                     { "foo", "Zm9v" },
                     { "foob", "Zm9vYg==" },
                     { "fooba", "Zm9vYmE=" },
                     { "foobar", "Zm9vYmFy" } };
        for (size_t i = 0; i < ELEMENTS(rows); i++) {
                size_t size;
                auto_free char *encoded = base64_encode(rows[i].plain, strlen(rows[i].plain),
                                                        false);
                auto_free char *plain = base64_decode(rows[i].encoded, &size);
                assert_string_equal(encoded, rows[i].encoded);
                assert_string_equal(plain, rows[i].plain);
                assert_int_equal(size, strlen(rows[i].plain));
        }
        size_t size;
        auto_free char *url = base64_encode("\xfb\xff", 2, true);
        assert_string_equal(url, "-_8=");
        assert_null(base64_decode("Z", &size));
        assert_null(base64_decode("Zm9*", &size));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(keys_are_parsed),  cmocka_unit_test(keys_leave_the_terminal),
                cmocka_unit_test(names_of_images),  cmocka_unit_test(bad_names_of_images),
                cmocka_unit_test(base64_both_ways),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
