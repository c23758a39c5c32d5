#include <sys/socket.h>

#include "base/auto.h"
#include "base/str.h"
#include "http/connection.h"

/* Splits and decodes "a=1&b=2" in place. -EINVAL for a bad escape. */
static int parse_query(struct http_request *request, const char *text)
{
        size_t limit = 1;
        for (const char *p = text; *p; p++)
                limit += *p == '&';
        request->query_text = xstrdup(text);
        request->query = xcalloc(limit, sizeof(*request->query));

        for (char *p = request->query_text; p;) {
                char *pair = strsep(&p, "&");
                if (!*pair)
                        continue;
                char *value = strchr(pair, '=');
                if (value)
                        *value++ = '\0';
                else
                        value = pair + strlen(pair);
                if (wire_percent_decode(pair, true) < 0 || wire_percent_decode(value, true) < 0)
                        return -EINVAL;
                request->query[request->query_length++] = (struct query_pair){ pair, value };
        }
        return 0;
}

int request_create(struct connection *connection, const char *text, size_t size,
                   struct http_request **ret)
{
        struct http_request *request = new0(struct http_request);
        request->connection = connection;
        request->pipe_read = request->pipe_write = request->file = -1;
        request->head_text = xmemdup(text, size);
        int r = wire_parse_request(request->head_text, size, &request->head);
        if (r < 0) {
                free(request->head_text);
                free(request);
                return r;
        }
        request->last = request->head.close;
        *ret = request;
        return 0;
}

void request_route(struct http_request *request)
{
        const struct http_server *server = request->connection->server;
        size_t length = strcspn(request->head.target, "?#");
        auto_free char *raw = xstrndup(request->head.target, length);
        const char *path = route_skip_version(raw, &request->version);
        request->path = xstrdup(path);
        bool is_bad = wire_percent_decode(request->path, false) < 0;

        auto_free char *query = NULL;
        if (request->head.target[length] == '?') {
                const char *start = request->head.target + length + 1;
                query = xstrndup(start, strcspn(start, "#"));
        }
        is_bad |= parse_query(request, query ? query : "") < 0;
        int r = is_bad ? -EINVAL
                       : route_find(server->routes, server->routes_length, request->head.method,
                                    path, &request->match, &request->allow);
        if (r < 0)
                request->refusal = r == -ENOENT ? 404 : r == -EOPNOTSUPP ? 405 : 400;
}

void request_refuse(struct http_request *request)
{
        request->begun = true;
        switch (request->refusal) {
        case 404:
                http_reply_error(request, 404, "page not found");
                return;
        case 405:
                http_reply_header(request, "Allow", buf_text(&request->allow));
                http_reply_error(request, 405, "method %s is not allowed for %s",
                                 request->head.method, request->path);
                return;
        default:
                http_reply_error(request, 400, "bad percent-escape in the request path");
        }
}

void request_close(struct http_request *request, bool aborted)
{
        request->aborted = aborted;
        body_finish(request);
        reply_finish(request);
        if (request->upgrading && request->opened)
                request->opened(request->opened_arg, -1, "", 0);
        if (request->closed)
                request->closed(request->closed_arg);
        route_match_finish(&request->match);
        buf_finish(&request->allow);
        buf_finish(&request->fields);
        free(request->query);
        free(request->query_text);
        free(request->path);
        free(request->head_text);
        free(request);
}

/* --- what handlers ask --- */

const char *http_request_method(const struct http_request *request)
{
        return request->head.method;
}

const char *http_request_path(const struct http_request *request)
{
        return request->path;
}

const char *http_request_target(const struct http_request *request)
{
        return request->head.target;
}

unsigned http_request_version(const struct http_request *request)
{
        return request->version;
}

const struct http_route *http_request_route(const struct http_request *request)
{
        return request->match.route;
}

const char *http_request_param(const struct http_request *request, const char *name)
{
        for (size_t i = 0; i < request->match.length; i++) {
                const struct route_param *param = &request->match.params[i];
                if (strlen(name) == param->name_length &&
                    memcmp(name, param->name, param->name_length) == 0)
                        return param->value;
        }
        return NULL;
}

const char *http_query_next(const struct http_request *request, const char *name, size_t *cursor)
{
        while (*cursor < request->query_length) {
                const struct query_pair *pair = &request->query[(*cursor)++];
                if (streq(pair->name, name))
                        return pair->value;
        }
        return NULL;
}

const char *http_request_query(const struct http_request *request, const char *name)
{
        size_t cursor = 0;
        return http_query_next(request, name, &cursor);
}

bool http_request_query_bool(const struct http_request *request, const char *name, bool absent)
{
        static const char *const no[] = { "", "0", "no", "false", "none" };
        const char *value = http_request_query(request, name);
        if (!value)
                return absent;
        for (size_t i = 0; i < ELEMENTS(no); i++)
                if (strcasecmp(value, no[i]) == 0)
                        return false;
        return true;
}

const char *http_request_header(const struct http_request *request, const char *name)
{
        return wire_field(&request->head, name);
}

bool http_request_wants_upgrade(const struct http_request *request)
{
        return request->head.upgrade;
}

int http_request_peer(const struct http_request *request, struct http_peer *ret)
{
        int domain;
        socklen_t size = sizeof(domain);
        if (getsockopt(request->connection->fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) < 0)
                return -errno;
        if (domain != AF_UNIX)
                return -ENODATA;
        struct ucred cred;
        size = sizeof(cred);
        if (getsockopt(request->connection->fd, SOL_SOCKET, SO_PEERCRED, &cred, &size) < 0)
                return -errno;
        *ret = (struct http_peer){ cred.pid, cred.uid, cred.gid };
        return 0;
}

int http_request_take_fd(struct http_request *request)
{
        struct connection *connection = request->connection;
        if (!connection || !connection->fds_length)
                return -1;
        int fd = connection->fds[0];
        connection->fds_length--;
        memmove(connection->fds, connection->fds + 1, connection->fds_length * sizeof(int));
        return fd;
}

void *http_request_data(const struct http_request *request)
{
        return request->data;
}

void http_request_set_data(struct http_request *request, void *data)
{
        request->data = data;
}

void http_request_on_close(struct http_request *request, void (*closed)(void *arg), void *arg)
{
        request->closed = closed;
        request->closed_arg = arg;
}

bool http_request_aborted(const struct http_request *request)
{
        return request->aborted;
}
