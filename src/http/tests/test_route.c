#include "base/tests/test.h"

#include <errno.h>

#include "base/auto.h"
#include "base/str.h"
#include "http/route.h"

static void nothing(struct http_request *request __attribute__((unused)),
                    void *arg __attribute__((unused)))
{
}

static const struct http_route routes[] = {
        { "GET", "/", nothing },
        { "GET", "/_ping", nothing },
        { "GET", "/containers/json", nothing },
        { "GET", "/containers/{id}/json", nothing },
        { "POST", "/containers/{id}/start", nothing },
        { "DELETE", "/containers/{id}", nothing },
        { "GET", "/images/{name*}/json", nothing },
        { "POST", "/images/{name*}/push", nothing },
        { "DELETE", "/images/{name*}", nothing },
        { "GET", "/a/{x}/b/{y*}/c/{z}", nothing },
        { "HEAD", "/containers/{id}/archive", nothing },
        { "GET", "/containers/{id}/archive", nothing },
};

/* "INDEX name=value…" or the error's name. */
static char *find(const char *method, const char *path)
{
        struct route_match match;
        auto_buf allow = { 0 };
        struct buf out = { 0 };
        int r = route_find(routes, ELEMENTS(routes), method, path, &match, &allow);
        if (r == -ENOENT)
                return xstrdup("none");
        if (r == -EINVAL)
                return xstrdup("bad");
        if (r == -EOPNOTSUPP)
                return xasprintf("allow %s", buf_text(&allow));
        buf_printf(&out, "%td", match.route - routes);
        for (size_t i = 0; i < match.length; i++)
                buf_printf(&out, " %.*s=%s", (int)match.params[i].name_length, match.params[i].name,
                           match.params[i].value);
        route_match_finish(&match);
        return buf_take(&out);
}

static void paths_find_their_route(void **state __attribute__((unused)))
{
        static const struct {
                const char *method, *path, *found;
        } cases[] = {
                { "GET", "/", "0" },
                { "GET", "/_ping", "1" },
                { "HEAD", "/_ping", "1" },
                { "GET", "/_ping/", "none" },
                { "GET", "/_pin", "none" },
                { "GET", "/containers/json", "2" },
                { "GET", "/containers/web/json", "3 id=web" },
                { "GET", "/containers//json", "none" },
                { "GET", "/containers/a%2Fb/json", "3 id=a/b" },
                { "GET", "/containers/a%zz/json", "bad" },
                { "POST", "/containers/web/start", "4 id=web" },
                { "PUT", "/containers/web/start", "allow POST" },
                { "PATCH", "/_ping", "allow GET, HEAD" },
                { "GET", "/images/busybox/json", "6 name=busybox" },
                { "GET", "/images/localhost:5000/lib/x:y/json", "6 name=localhost:5000/lib/x:y" },
                { "GET", "/images/json/json", "6 name=json" },
                { "GET", "/images/a/json/json", "6 name=a/json" },
                { "GET", "/images/json", "allow DELETE" },
                { "DELETE", "/images/a/b/c", "8 name=a/b/c" },
                { "GET", "/a/1/b/2/3/c/4", "9 x=1 y=2/3 z=4" },
                { "GET", "/a/1/b/c/c/c/c", "9 x=1 y=c/c z=c" },
                { "GET", "/a/1/b/c/4", "none" },
                { "HEAD", "/containers/x/archive", "10 id=x" },
                { "GET", "/containers/x/archive", "11 id=x" },
                { "GET", "", "none" },
        };
        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                auto_free char *found = find(cases[i].method, cases[i].path);
                assert_string_equal(found, cases[i].found);
        }
}

static void version_is_taken_off(void **state __attribute__((unused)))
{
        static const struct {
                const char *path, *rest;
                unsigned version;
        } cases[] = {
                { "/v1.44/info", "/info", 44 },
                { "/v1.7/", "/", 7 },
                { "/info", "/info", 0 },
                { "/v1.44", "/v1.44", 0 },
                { "/v1.x/info", "/v1.x/info", 0 },
                { "/v2.0/info", "/v2.0/info", 0 },
                { "/v1.99999/x", "/v1.99999/x", 0 },
        };
        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                unsigned version;
                assert_string_equal(route_skip_version(cases[i].path, &version), cases[i].rest);
                assert_int_equal(version, cases[i].version);
        }
}

static void patterns_are_checked(void **state __attribute__((unused)))
{
        for (size_t i = 0; i < ELEMENTS(routes); i++)
                assert_true(route_is_valid(&routes[i]));
        static const struct http_route bad[] = {
                { "GET", "no-slash", nothing },
                { "GET", "/{}", nothing },
                { "GET", "/{open", nothing },
                { "GET", "/{a*}/{b*}", nothing },
                { "G T", "/x", nothing },
                { "GET", "/x", NULL },
                { "GET", "/{a}/{b}/{c}/{d}/{e}", nothing },
        };
        for (size_t i = 0; i < ELEMENTS(bad); i++)
                assert_false(route_is_valid(&bad[i]));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(paths_find_their_route),
                cmocka_unit_test(version_is_taken_off),
                cmocka_unit_test(patterns_are_checked),
        };
        return cmocka_run_group_tests_name("route", tests, NULL, NULL);
}
