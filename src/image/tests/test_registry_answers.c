/* What registries and token servers say. */
#include "base/tests/test.h"

#include <errno.h>
#include <stdlib.h>

#include "base/str.h"
#include "image/registry.h"
#include "image/registry_answers.h"

static void test_bearer(void **state)
{
        (void)state;
        struct registry_challenge c = { 0 };
        assert_return_code(registry_challenge_parse(
                                   "Bearer realm=\"https://auth.docker.io/token\",service="
                                   "\"registry.docker.io\",scope=\"repository:a/b:pull,push\"",
                                   &c),
                           0);
        assert_true(c.bearer);
        assert_string_equal(c.realm, "https://auth.docker.io/token");
        assert_string_equal(c.service, "registry.docker.io");
        assert_string_equal(c.scope, "repository:a/b:pull,push");
        registry_challenge_finish(&c);
}

static void test_bearer_before_basic(void **state)
{
        (void)state;
        struct registry_challenge c = { 0 };
        assert_return_code(
                registry_challenge_parse(" Basic realm=\"a \\\"quoted\\\" one\" ,, bearer REALM = "
                                         "\"http://x/\" , error=invalid_token, Negotiate",
                                         &c),
                0);
        assert_true(c.bearer);
        assert_string_equal(c.realm, "http://x/");
        registry_challenge_finish(&c);
        assert_return_code(registry_challenge_parse("Negotiate, Basic realm=\"a \\\"b\"", &c), 0);
        assert_true(c.basic);
        assert_string_equal(c.realm, "a \"b");
        registry_challenge_finish(&c);
}

static void test_unusable_challenges(void **state)
{
        (void)state;
        static const char *const headers[] = {
                "",
                ",",
                "Negotiate",
                "Bearer",
                "Bearer service=\"x\"",
                "=",
                "\"",
                "Digest realm=x",
                "Bearer realm=\"never ends",
        };
        for (size_t i = 0; i < ELEMENTS(headers); i++) {
                struct registry_challenge c = { 0 };
                assert_int_equal(registry_challenge_parse(headers[i], &c), -EINVAL);
                assert_null(c.realm);
        }
        auto_free char *huge = xasprintf("Basic realm=\"%*s\"", 10000, "");
        struct registry_challenge c = { 0 };
        assert_int_equal(registry_challenge_parse(huge, &c), -EINVAL);
}

static int token(const char *text, struct registry_token *ret, struct err *err)
{
        return registry_token_parse(text, strlen(text), ret, err);
}

static void test_token(void **state)
{
        (void)state;
        struct registry_token t = { 0 };
        struct err err = { 0 };
        assert_return_code(token("{\"token\":\"abc\",\"expires_in\":300}", &t, &err), 0);
        assert_string_equal(t.token, "abc");
        assert_int_equal(t.expires_in_s, 300);
        free(t.token);
        assert_return_code(token("{\"access_token\":\"def\",\"expires_in\":1}", &t, &err), 0);
        assert_string_equal(t.token, "def");
        assert_int_equal(t.expires_in_s, 60);
        free(t.token);
        assert_int_equal(token("{}", &t, &err), -EPROTO);
        assert_int_equal(token("{\"token\":\"\"}", &t, &err), -EPROTO);
        assert_int_equal(token("{\"token\":\"a\\r\\nHost: evil\"}", &t, &err), -EPROTO);
        assert_true(token("<html>", &t, &err) < 0);
        assert_non_null(strstr(err_text(&err), "token server"));
}

static void test_errors(void **state)
{
        (void)state;
        struct registry_error e;
        static const char body[] = "{\"errors\":[{\"code\":\"MANIFEST_UNKNOWN\",\"message\":"
                                   "\"manifest unknown\",\"detail\":{\"Tag\":\"x\"}}]}";
        registry_error_parse(body, strlen(body), &e);
        assert_string_equal(e.code, "MANIFEST_UNKNOWN");
        assert_string_equal(e.text, "manifest unknown: manifest unknown");
        static const char token_server[] = "{\"details\":\"incorrect\\u001b[31m password\"}";
        registry_error_parse(token_server, strlen(token_server), &e);
        assert_string_equal(e.text, "incorrect [31m password");
        registry_error_parse("<html>", 6, &e);
        assert_string_equal(e.text, "");
        registry_error_parse(NULL, 0, &e);
        assert_string_equal(e.text, "");
}

static void test_range(void **state)
{
        (void)state;
        uint64_t bytes;
        assert_return_code(registry_range_parse("0-1023", &bytes), 0);
        assert_int_equal(bytes, 1024);
        assert_return_code(registry_range_parse("bytes=0-0", &bytes), 0);
        assert_int_equal(bytes, 1);
        static const char *const bad[] = { "",     "1-5",  "0",    "0-",
                                           "0--1", "0-1x", "x0-1", "0-18446744073709551615" };
        for (size_t i = 0; i < ELEMENTS(bad); i++)
                assert_int_equal(registry_range_parse(bad[i], &bytes), -EINVAL);
}

static void test_urls(void **state)
{
        (void)state;
        struct registry_url url = { 0 };
        assert_return_code(registry_url_parse("https://[::1]:5000/v2/?x=y", &url), 0);
        assert_string_equal(url.scheme, "https");
        assert_string_equal(url.host, "[::1]:5000");
        registry_url_finish(&url);
        static const char *const bad[] = { "",         "ftp://x/", "//x/",        "http://",
                                           "http:///", "/path",    "http://u@h/", "http://a b/" };
        for (size_t i = 0; i < ELEMENTS(bad); i++)
                assert_int_equal(registry_url_parse(bad[i], &url), -EINVAL);
}

static void test_encodings(void **state)
{
        (void)state;
        auto_free char *query = registry_query_escape("repository:a/b:pull,push é");
        assert_string_equal(query, "repository%3Aa%2Fb%3Apull%2Cpush%20%C3%A9");
        static const char *const pairs[][3] = {
                { "a", "b", "Basic YTpi" },
                { "user", "pw", "Basic dXNlcjpwdw==" },
                { "Aladdin", "open sesame", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==" },
                { "u", "", "Basic dTo=" },
        };
        for (size_t i = 0; i < ELEMENTS(pairs); i++) {
                auto_free char *basic = registry_basic(pairs[i][0], pairs[i][1]);
                assert_string_equal(basic, pairs[i][2]);
        }
}

static void test_insecure(void **state)
{
        (void)state;
        char *list[] = { (char *)"registry.lan", (char *)"other.lan:5000", (char *)"10.0.0.0/8",
                         (char *)"fd00::/16", NULL };
        static const char *const yes[] = {
                "localhost",     "localhost:5000", "127.0.0.1:1",      "127.9.9.9",
                "[::1]:5000",    "registry.lan",   "registry.lan:443", "other.lan:5000",
                "10.200.3.4:80", "[fd00::7]:1",
        };
        static const char *const no[] = {
                "docker.io",          "other.lan",
                "other.lan:5001",     "11.0.0.1",
                "128.0.0.1",          "[fd01::7]:1",
                "localhost.evil.com", "registry.lan.evil.com",
                "127.0.0.1.evil.com", "10.0.0.1.evil",
        };
        for (size_t i = 0; i < ELEMENTS(yes); i++)
                if (!registry_is_insecure(list, yes[i]))
                        fail_msg("%s", yes[i]);
        for (size_t i = 0; i < ELEMENTS(no); i++)
                if (registry_is_insecure(list, no[i]))
                        fail_msg("%s", no[i]);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_bearer),
                cmocka_unit_test(test_bearer_before_basic),
                cmocka_unit_test(test_unusable_challenges),
                cmocka_unit_test(test_token),
                cmocka_unit_test(test_errors),
                cmocka_unit_test(test_range),
                cmocka_unit_test(test_urls),
                cmocka_unit_test(test_encodings),
                cmocka_unit_test(test_insecure),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
