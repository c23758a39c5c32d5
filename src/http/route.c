#include "http/route.h"

#include <errno.h>
#include <stdlib.h>

#include "base/auto.h"
#include "base/str.h"
#include "http/wire.h"

struct capture {
        const char *name, *value;
        size_t name_length, value_length;
};

struct captures {
        struct capture items[ROUTE_PARAMS_LIMIT];
        size_t length;
};

const char *route_skip_version(const char *path, unsigned *ret_version)
{
        uint32_t minor = 0;
        *ret_version = 0;
        const char *digits = str_after(path, "/v1.");
        if (!digits)
                return path;
        size_t length = strspn(digits, "0123456789");
        if (length == 0 || length > 4 || digits[length] != '/')
                return path;
        for (size_t i = 0; i < length; i++)
                minor = minor * 10 + (uint32_t)(digits[i] - '0');
        *ret_version = minor;
        return digits + length;
}

static bool match_from(const char *pattern, const char *path, struct captures *captures);

/* `{name*}`: as many segments as leave a match for the rest. */
static bool match_many(const struct capture *open, const char *rest, const char *path,
                       struct captures *captures)
{
        size_t kept = captures->length;
        for (size_t end = strlen(path); end > 0; end--) {
                if (path[end] && path[end] != '/')
                        continue;
                captures->length = kept;
                captures->items[captures->length] = *open;
                captures->items[captures->length++].value_length = end;
                if (match_from(rest, path + end, captures))
                        return true;
        }
        return false;
}

/* Both at a slash or at their end. */
static bool match_from(const char *pattern, const char *path, struct captures *captures)
{
        while (*pattern == '/' && *path == '/') {
                pattern++;
                path++;
                size_t wanted = strcspn(pattern, "/");
                size_t have = strcspn(path, "/");
                if (*pattern == '{') {
                        if (captures->length == ROUTE_PARAMS_LIMIT)
                                return false;
                        bool many = pattern[wanted - 2] == '*';
                        struct capture capture = { .name = pattern + 1,
                                                   .value = path,
                                                   .name_length = wanted - (many ? 3 : 2),
                                                   .value_length = have };
                        if (many)
                                return match_many(&capture, pattern + wanted, path, captures);
                        if (have == 0)
                                return false;
                        captures->items[captures->length++] = capture;
                } else if (wanted != have || memcmp(pattern, path, have) != 0) {
                        return false;
                }
                pattern += wanted;
                path += have;
        }
        return !*pattern && !*path;
}

bool route_is_valid(const struct http_route *route)
{
        unsigned many = 0, params = 0;
        if (!wire_is_token(route->method) || route->pattern[0] != '/' || !route->begin)
                return false;
        for (const char *p = route->pattern; *p;) {
                p++;
                size_t length = strcspn(p, "/");
                if (*p == '{') {
                        if (length < 3 || p[length - 1] != '}')
                                return false;
                        many += p[length - 2] == '*';
                        params++;
                }
                p += length;
        }
        return many <= 1 && params <= ROUTE_PARAMS_LIMIT;
}

static int publish(const struct http_route *route, const struct captures *captures,
                   struct route_match *ret)
{
        struct route_match match = { .route = route };
        for (size_t i = 0; i < captures->length; i++) {
                const struct capture *capture = &captures->items[i];
                char *value = xstrndup(capture->value, capture->value_length);
                match.params[match.length++] = (struct route_param){ capture->name,
                                                                     capture->name_length, value };
                if (wire_percent_decode(value, false) < 0) {
                        route_match_finish(&match);
                        return -EINVAL;
                }
        }
        *ret = match;
        return 0;
}

static void allow_add(struct buf *allow, const char *method)
{
        if (wire_has_token(buf_text(allow), method))
                return;
        buf_printf(allow, "%s%s", allow->size > 0 ? ", " : "", method);
        if (streq(method, "GET"))
                allow_add(allow, "HEAD");
}

int route_find(const struct http_route *routes, size_t length, const char *method, const char *path,
               struct route_match *ret, struct buf *allow)
{
        const struct http_route *get = NULL;
        struct captures get_captures = { 0 };
        bool is_head = streq(method, "HEAD");

        for (size_t i = 0; i < length; i++) {
                struct captures captures = { 0 };
                if (!match_from(routes[i].pattern, path, &captures))
                        continue;
                if (streq(routes[i].method, method))
                        return publish(&routes[i], &captures, ret);
                if (is_head && !get && streq(routes[i].method, "GET")) {
                        get = &routes[i];
                        get_captures = captures;
                }
                allow_add(allow, routes[i].method);
        }
        if (get)
                return publish(get, &get_captures, ret);
        return allow->size > 0 ? -EOPNOTSUPP : -ENOENT;
}

void route_match_finish(struct route_match *match)
{
        for (size_t i = 0; i < match->length; i++)
                free(match->params[i].value);
        *match = (struct route_match){ 0 };
}
