#include <arpa/inet.h>
#include <errno.h>
#include <json-c/json_object.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/auto.h"
#include "base/str.h"
#include "cli/spec.h"

#define PORT_MAX 65535

struct range {
        unsigned first, last;
};

static int parse_port(const char *text, unsigned *ret)
{
        uint32_t port;
        if (str_to_u32(text, &port) < 0 || port > PORT_MAX)
                return -EINVAL;
        *ret = port;
        return 0;
}

/* "80" or "80-90" */
static int parse_range(const char *text, struct range *ret)
{
        const char *dash = strchr(text, '-');
        auto_free char *first = xstrndup(text, dash ? (size_t)(dash - text) : strlen(text));
        struct range range;
        if (parse_port(first, &range.first) < 0 ||
            parse_port(dash ? dash + 1 : first, &range.last) < 0 || range.last < range.first)
                return -EINVAL;
        *ret = range;
        return 0;
}

/* Cuts "/tcp" off `text`. */
static int take_protocol(char *text, const char **ret, struct err *err)
{
        static const char *const known[] = { "tcp", "udp", "sctp" };
        char *slash = strchr(text, '/');
        *ret = "tcp";
        if (!slash)
                return 0;
        *slash = '\0';
        for (size_t i = 0; i < ELEMENTS(known); i++) {
                if (strcasecmp(slash + 1, known[i]) == 0) {
                        *ret = known[i];
                        return 0;
                }
        }
        return err_plain(err, EINVAL, "invalid proto: %s", slash + 1);
}

static void add_exposed(struct json_object *exposed, unsigned port, const char *protocol)
{
        char key[32];
        snprintf(key, sizeof(key), "%u/%s", port, protocol);
        json_object_object_add(exposed, key, json_object_new_object());
}

int spec_expose(const char *text, struct json_object *exposed, struct err *err)
{
        auto_free char *copy = xstrdup(text);
        const char *protocol;
        struct range range;
        int r = take_protocol(copy, &protocol, err);
        if (r < 0)
                return r;
        if (strchr(copy, ':'))
                return err_plain(err, EINVAL, "invalid port format for --expose: %s", text);
        if (parse_range(copy, &range) < 0)
                return err_plain(err, EINVAL, "invalid range format for --expose: %s", text);
        for (unsigned port = range.first; port <= range.last; port++)
                add_exposed(exposed, port, protocol);
        return 0;
}

static int check_address(char *address, struct err *err)
{
        unsigned char ignored[16];
        size_t length = strlen(address);
        if (address[0] == '[' && length > 2 && address[length - 1] == ']') {
                memmove(address, address + 1, length - 2);
                address[length - 2] = '\0';
        }
        if (!*address || inet_pton(AF_INET, address, ignored) == 1 ||
            inet_pton(AF_INET6, address, ignored) == 1)
                return 0;
        return err_plain(err, EINVAL, "invalid IP address: %s", address);
}

static void add_binding(struct json_object *bindings, unsigned port, const char *protocol,
                        const char *address, const char *host)
{
        char key[32];
        struct json_object *list = NULL, *binding = json_object_new_object();
        snprintf(key, sizeof(key), "%u/%s", port, protocol);
        if (!json_object_object_get_ex(bindings, key, &list)) {
                list = json_object_new_array();
                json_object_object_add(bindings, key, list);
        }
        json_object_object_add(binding, "HostIp", json_object_new_string(address));
        json_object_object_add(binding, "HostPort", json_object_new_string(host));
        json_object_array_add(list, binding);
}

/* Host ports of each container port: the one in step, the whole range where there
 * is only one container port, or any. */
static int bind_range(const char *text, const struct range *inner, const char *host,
                      const char *address, const char *protocol, struct json_object *exposed,
                      struct json_object *bindings, struct err *err)
{
        struct range outer = { 0 };
        bool stepped = false;
        if (*host) {
                if (parse_range(host, &outer) < 0)
                        return err_plain(err, EINVAL, "invalid hostPort: %s", host);
                stepped = inner->first != inner->last || outer.first == outer.last;
                if (stepped && outer.last - outer.first != inner->last - inner->first)
                        return err_plain(err, EINVAL,
                                         "invalid ranges specified for container and host Ports: "
                                         "%s",
                                         text);
        }
        for (unsigned port = inner->first; port <= inner->last; port++) {
                char number[32];
                snprintf(number, sizeof(number), "%u", outer.first + (port - inner->first));
                add_exposed(exposed, port, protocol);
                add_binding(bindings, port, protocol, address, stepped ? number : host);
        }
        return 0;
}

int spec_publish(const char *text, struct json_object *exposed, struct json_object *bindings,
                 struct err *err)
{
        auto_free char *copy = xstrdup(text);
        const char *protocol;
        struct range inner;
        int r = take_protocol(copy, &protocol, err);
        if (r < 0)
                return r;
        /* From the right: container, host, address (which may hold colons itself). */
        char *container = strrchr(copy, ':'), *host = NULL, *address = NULL;
        char empty[] = "";
        if (container) {
                *container++ = '\0';
                host = strrchr(copy, ':');
                if (host) {
                        *host++ = '\0';
                        address = copy;
                } else {
                        host = copy;
                }
        } else {
                container = copy;
        }
        host = host ? host : empty;
        address = address ? address : empty;
        if (!*container)
                return err_plain(err, EINVAL, "no port specified: %s<empty>", text);
        if (parse_range(container, &inner) < 0)
                return err_plain(err, EINVAL, "invalid containerPort: %s", container);
        r = check_address(address, err);
        if (r < 0)
                return r;
        return bind_range(text, &inner, host, address, protocol, exposed, bindings, err);
}
