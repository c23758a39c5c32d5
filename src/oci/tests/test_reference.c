#include "oci/reference.h"

#include <errno.h>

#include "base/str.h"
#include "base/tests/test.h"

#define HEX64  "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define DIGEST "sha256:" HEX64
#define A127                                                                                       \
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" \
        "aa"                                                                                       \
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

static void names_are_normalised_and_shown_familiarly(void **state)
{
        (void)state;
        static const struct {
                const char *text, *whole, *familiar, *host;
        } rows[] = {
                { "busybox", "docker.io/library/busybox:latest", "busybox:latest",
                  "registry-1.docker.io" },
                { "busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36",
                  "registry-1.docker.io" },
                { "library/busybox", "docker.io/library/busybox:latest", "busybox:latest", NULL },
                { "docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest", NULL },
                { "index.docker.io/library/busybox:x", "docker.io/library/busybox:x", "busybox:x",
                  NULL },
                { "user/app", "docker.io/user/app:latest", "user/app:latest", NULL },
                { "localhost/x", "localhost/x:latest", "localhost/x:latest", "localhost" },
                { "localhost:5000/x", "localhost:5000/x:latest", "localhost:5000/x:latest",
                  "localhost:5000" },
                { "localhost:5000/a/b:c", "localhost:5000/a/b:c", "localhost:5000/a/b:c", NULL },
                { "127.0.0.1:5000/x", "127.0.0.1:5000/x:latest", "127.0.0.1:5000/x:latest", NULL },
                { "[::1]:5000/x:v", "[::1]:5000/x:v", "[::1]:5000/x:v", "[::1]:5000" },
                { "[fd00:1::2]/x", "[fd00:1::2]/x:latest", "[fd00:1::2]/x:latest", NULL },
                { "ghcr.io/o/p/q/r", "ghcr.io/o/p/q/r:latest", "ghcr.io/o/p/q/r:latest", NULL },
                { "Host/x", "Host/x:latest", "Host/x:latest", "Host" },
                { "a__b/c-_"
                  "d",
                  NULL, NULL, NULL },
                { "a__b/c---d.e_f", "docker.io/a__b/c---d.e_f:latest", "a__b/c---d.e_f:latest",
                  NULL },
                { "busybox@" DIGEST, "docker.io/library/busybox@" DIGEST, "busybox@" DIGEST, NULL },
                { "busybox:1@" DIGEST, "docker.io/library/busybox:1@" DIGEST, "busybox:1@" DIGEST,
                  NULL },
                { "x:_tag.With-All_Kinds", "docker.io/library/x:_tag.With-All_Kinds",
                  "x:_tag.With-All_Kinds", NULL },
                { "x:" A127 "a", "docker.io/library/x:" A127 "a", "x:" A127 "a", NULL },
                { "docker.io/foo.bar/x", "docker.io/foo.bar/x:latest", "docker.io/foo.bar/x:latest",
                  NULL },
                { "docker.io/library/" HEX64, "docker.io/library/" HEX64 ":latest",
                  "library/" HEX64 ":latest", NULL },
        };
        for (size_t i = 0; i < ELEMENTS(rows); i++) {
                auto_reference reference = { 0 };
                auto_reference again = { 0 };
                struct err err = { 0 };
                int r = oci_reference_parse(rows[i].text, &reference, &err);
                if (!rows[i].whole) {
                        assert_int_equal(r, -EINVAL);
                        continue;
                }
                if (r < 0)
                        fail_msg("%s: %s", rows[i].text, err.text);
                auto_free char *whole = oci_reference_format(&reference);
                auto_free char *familiar = oci_reference_familiar(&reference);
                assert_string_equal(whole, rows[i].whole);
                assert_string_equal(familiar, rows[i].familiar);
                if (rows[i].host)
                        assert_string_equal(oci_reference_host(&reference), rows[i].host);

                assert_int_equal(oci_reference_parse(familiar, &again, &err), 0);
                auto_free char *whole_again = oci_reference_format(&again);
                assert_string_equal(whole, whole_again);
        }
}

static void what_is_no_reference_is_refused(void **state)
{
        (void)state;
        static const struct {
                const char *text, *error;
        } rows[] = {
                { "", "invalid reference format" },
                { " ", "invalid reference format" },
                { "a b", "invalid reference format" },
                { "busybox:", "invalid reference format" },
                { "busybox@", "invalid reference format" },
                { "busybox@sha256:abc", "invalid reference format" },
                { "busybox@" DIGEST "@" DIGEST, "invalid reference format" },
                { "@" DIGEST, "invalid reference format" },
                { ":tag", "invalid reference format" },
                { "Busybox", "repository name (Busybox) must be lowercase" },
                { "user/Busybox:X", "repository name (user/Busybox) must be lowercase" },
                { HEX64, "cannot specify 64-byte hexadecimal strings" },
                { "a//b", "invalid reference format" },
                { "/a", "invalid reference format" },
                { "a/", "invalid reference format" },
                { "a/..", "invalid reference format" },
                { "../a", "invalid reference format" },
                { "a..b", "invalid reference format" },
                { "a___b", "invalid reference format" },
                { "-a", "invalid reference format" },
                { "a-", "invalid reference format" },
                { "a_", "invalid reference format" },
                { "http://x.y/z", "invalid reference format" },
                { "host:port/x", "invalid reference format" },
                { "host:/x", "invalid reference format" },
                { "-host.io/x", "invalid reference format" },
                { "host-.io/x", "invalid reference format" },
                { "host..io/x", "invalid reference format" },
                { ".host/x", "invalid reference format" },
                { "[::1/x", "invalid reference format" },
                { "[]:1/x", "invalid reference format" },
                { "[g::1]/x", "invalid reference format" },
                { "x:.tag", "invalid reference format" },
                { "x:-tag", "invalid reference format" },
                { "x:t/g", "invalid reference format" },
                { "x:" A127 "aa", "invalid reference format" },
                { "x.y/" A127 A127, "must not be more than 255 characters" },
                { "caf\xc3\xa9", "invalid reference format" },
                { "x\n", "invalid reference format" },
        };
        for (size_t i = 0; i < ELEMENTS(rows); i++) {
                struct oci_reference reference = { 0 };
                struct err err = { 0 };
                if (oci_reference_parse(rows[i].text, &reference, &err) != -EINVAL)
                        fail_msg("accepted: %s", rows[i].text);
                if (!strstr(err.text, rows[i].error))
                        fail_msg("%s: %s", rows[i].text, err.text);
                assert_null(reference.path);
        }
        auto_free char *endless = xcalloc(1, 1000001);
        memset(endless, 'a', 1000000);
        struct oci_reference reference;
        assert_int_equal(oci_reference_parse(endless, &reference, NULL), -EINVAL);
}

static void a_name_by_itself_has_no_tag(void **state)
{
        (void)state;
        auto_reference a = { 0 };
        auto_reference b = { 0 };
        assert_int_equal(oci_reference_parse_name("busybox", &a, NULL), 0);
        assert_null(a.tag);
        oci_reference_copy(&a, &b);
        auto_free char *name = oci_reference_name(&b);
        auto_free char *familiar = oci_reference_familiar_name(&b);
        assert_string_equal(name, "docker.io/library/busybox");
        assert_string_equal(familiar, "busybox");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(names_are_normalised_and_shown_familiarly),
                cmocka_unit_test(what_is_no_reference_is_refused),
                cmocka_unit_test(a_name_by_itself_has_no_tag),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
