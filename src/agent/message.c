#include "agent/message.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/str.h"
#include "codec/json.h"

#define KEY_LENGTH_MAX 64
#define SIGNAL_MAX     64
#define SIZE_LIMIT     65535 /* of a terminal */

static const char *const op_names[] = { "",        "stream",  "launch", "call", "resize",
                                        "signal",  "network", "list",   "cpus", "clock",
                                        "extract", "archive", NULL };

static const struct json_field address_fields[] = {
        JSON_FIELD(struct netdev_address, "local", JSON_STRING, local, JSON_REQUIRED),
        JSON_FIELD(struct netdev_address, "peer", JSON_STRING, peer, 0),
        JSON_FIELD(struct netdev_address, "broadcast", JSON_STRING, broadcast, 0),
        JSON_FIELD(struct netdev_address, "scope", JSON_UINT, scope, 0),
};
static const struct json_shape address_shape = JSON_SHAPE("address", struct netdev_address,
                                                          address_fields);

static const struct json_field route_fields[] = {
        JSON_FIELD(struct netdev_route, "to", JSON_STRING, to, JSON_REQUIRED),
        JSON_FIELD(struct netdev_route, "gateway", JSON_STRING, gateway, 0),
        JSON_FIELD(struct netdev_route, "source", JSON_STRING, source, 0),
        JSON_FIELD(struct netdev_route, "scope", JSON_UINT, scope, 0),
        JSON_FIELD(struct netdev_route, "metric", JSON_UINT, metric, 0),
        JSON_FIELD(struct netdev_route, "mtu", JSON_UINT, mtu, 0),
        JSON_FIELD(struct netdev_route, "onlink", JSON_BOOL, onlink, 0),
};
static const struct json_shape route_shape = JSON_SHAPE("route", struct netdev_route, route_fields);

static const struct json_field neighbour_fields[] = {
        JSON_FIELD(struct netdev_neighbour, "address", JSON_STRING, address, JSON_REQUIRED),
        JSON_FIELD(struct netdev_neighbour, "mac", JSON_STRING, mac, JSON_REQUIRED),
};
static const struct json_shape neighbour_shape = JSON_SHAPE("neighbour", struct netdev_neighbour,
                                                            neighbour_fields);

static const struct json_field netdev_fields[] = {
        JSON_FIELD(struct netdev, "index", JSON_UINT, index, 0),
        JSON_FIELD(struct netdev, "name", JSON_STRING, name, 0),
        JSON_FIELD(struct netdev, "mac", JSON_STRING, mac, 0),
        JSON_FIELD(struct netdev, "mtu", JSON_UINT, mtu, 0),
        JSON_FIELD(struct netdev, "up", JSON_BOOL, up, 0),
        JSON_FIELD(struct netdev, "no_ipv6", JSON_BOOL, no_ipv6, 0),
        JSON_FIELD_ARRAY(struct netdev, "addresses", addresses, addresses_length, &address_shape,
                         0),
        JSON_FIELD_ARRAY(struct netdev, "routes", routes, routes_length, &route_shape, 0),
        JSON_FIELD_ARRAY(struct netdev, "neighbours", neighbours, neighbours_length,
                         &neighbour_shape, 0),
};
const struct json_shape agent_netdev_shape = JSON_SHAPE("network device", struct netdev,
                                                        netdev_fields);

static const struct json_field card_fields[] = {
        JSON_FIELD(struct agent_card, "mac", JSON_STRING, mac, JSON_REQUIRED),
        JSON_FIELD_STRUCT(struct agent_card, "device", device, &agent_netdev_shape, JSON_REQUIRED),
};
static const struct json_shape card_shape = JSON_SHAPE("card", struct agent_card, card_fields);

static const struct json_field request_fields[] = {
        JSON_FIELD_ENUM(struct agent_request, "op", op, op_names, JSON_REQUIRED),
        JSON_FIELD(struct agent_request, "key", JSON_STRING, key, 0),
        JSON_FIELD(struct agent_request, "fd", JSON_UINT, fd, 0),
        JSON_FIELD(struct agent_request, "argv", JSON_STRV, argv, 0),
        JSON_FIELD(struct agent_request, "config", JSON_STRING, config, 0),
        JSON_FIELD(struct agent_request, "process", JSON_STRING, process, 0),
        JSON_FIELD(struct agent_request, "terminal", JSON_BOOL, terminal, 0),
        JSON_FIELD(struct agent_request, "plain_newlines", JSON_BOOL, plain_newlines, 0),
        JSON_FIELD(struct agent_request, "rows", JSON_UINT, rows, 0),
        JSON_FIELD(struct agent_request, "columns", JSON_UINT, columns, 0),
        JSON_FIELD(struct agent_request, "signal", JSON_UINT, signal, 0),
        JSON_FIELD(struct agent_request, "count", JSON_UINT, count, 0),
        JSON_FIELD(struct agent_request, "shift_ns", JSON_INT, shift_ns, 0),
        JSON_FIELD(struct agent_request, "gently", JSON_BOOL, gently, 0),
        JSON_FIELD_ARRAY(struct agent_request, "cards", cards, cards_length, &card_shape, 0),
        JSON_FIELD(struct agent_request, "path", JSON_STRING, path, 0),
        JSON_FIELD(struct agent_request, "container", JSON_STRING, container, 0),
        JSON_FIELD(struct agent_request, "look", JSON_BOOL, look, 0),
        JSON_FIELD_UINTV(struct agent_request, "owner", owner, owner_length, 0),
        JSON_FIELD(struct agent_request, "no_overwrite_dir_non_dir", JSON_BOOL,
                   no_overwrite_dir_non_dir, 0),
};
static const struct json_shape request_shape = JSON_SHAPE("request", struct agent_request,
                                                          request_fields);

static const struct json_field process_fields[] = {
        JSON_FIELD(struct agent_process, "pid", JSON_UINT, pid, JSON_REQUIRED),
        JSON_FIELD(struct agent_process, "parent", JSON_UINT, parent, 0),
        JSON_FIELD(struct agent_process, "uid", JSON_UINT, uid, 0),
        JSON_FIELD(struct agent_process, "threads", JSON_UINT, threads, 0),
        JSON_FIELD(struct agent_process, "terminal", JSON_UINT, terminal, 0),
        JSON_FIELD(struct agent_process, "state", JSON_STRING, state, 0),
        JSON_FIELD(struct agent_process, "name", JSON_STRING, name, 0),
        JSON_FIELD(struct agent_process, "command", JSON_STRING, command, 0),
        JSON_FIELD(struct agent_process, "started_ms", JSON_UINT, started_ms, 0),
        JSON_FIELD(struct agent_process, "cpu_ms", JSON_UINT, cpu_ms, 0),
        JSON_FIELD(struct agent_process, "virtual_kib", JSON_UINT, virtual_kib, 0),
        JSON_FIELD(struct agent_process, "resident_kib", JSON_UINT, resident_kib, 0),
};
static const struct json_shape process_shape = JSON_SHAPE("process", struct agent_process,
                                                          process_fields);

static const struct json_field reply_fields[] = {
        JSON_FIELD(struct agent_reply, "ok", JSON_BOOL, ok, 0),
        JSON_FIELD(struct agent_reply, "pid", JSON_INT, pid, 0),
        JSON_FIELD_OPT(struct agent_reply, "exit", JSON_INT, exit, has_exit),
        JSON_FIELD(struct agent_reply, "oom_kills", JSON_UINT, oom_kills, 0),
        JSON_FIELD(struct agent_reply, "error", JSON_STRING, error, 0),
        JSON_FIELD(struct agent_reply, "code", JSON_INT, code, 0),
        JSON_FIELD(struct agent_reply, "output", JSON_STRING, output, 0),
        JSON_FIELD(struct agent_reply, "errors", JSON_STRING, errors, 0),
        JSON_FIELD_ARRAY(struct agent_reply, "processes", processes, processes_length,
                         &process_shape, 0),
        JSON_FIELD(struct agent_reply, "uptime_ms", JSON_UINT, uptime_ms, 0),
        JSON_FIELD(struct agent_reply, "memory_kib", JSON_UINT, memory_kib, 0),
        JSON_FIELD(struct agent_reply, "realtime_ns", JSON_INT, realtime_ns, 0),
        JSON_FIELD(struct agent_reply, "mode", JSON_UINT, mode, 0),
        JSON_FIELD(struct agent_reply, "size_bytes", JSON_INT, size_bytes, 0),
        JSON_FIELD(struct agent_reply, "mtime_ns", JSON_INT, mtime_ns, 0),
        JSON_FIELD(struct agent_reply, "link", JSON_STRING, link, 0),
};
static const struct json_shape reply_shape = JSON_SHAPE("reply", struct agent_reply, reply_fields);

void agent_request_finish(struct agent_request *request)
{
        json_free(&request_shape, request);
}

void agent_reply_finish(struct agent_reply *reply)
{
        json_free(&reply_shape, reply);
}

static bool is_key(const char *key)
{
        size_t length = key ? strlen(key) : 0;
        return length > 0 && length <= KEY_LENGTH_MAX &&
               strspn(key, "abcdefghijklmnopqrstuvwxyz0123456789") == length;
}

static int check_request(const struct agent_request *request, struct err *err)
{
        bool named = request->op == AGENT_OP_STREAM || request->op == AGENT_OP_LAUNCH ||
                     request->op == AGENT_OP_NETWORK;
        bool runs = request->op == AGENT_OP_LAUNCH || request->op == AGENT_OP_CALL;
        if (named && !is_key(request->key))
                return err_plain(err, EINVAL, "request: key '%s' is not 1 to %d of [a-z0-9]",
                                 request->key ? request->key : "", KEY_LENGTH_MAX);
        if (request->fd > 2)
                return err_plain(err, EINVAL, "request: fd %u is not 0, 1 or 2", request->fd);
        if (runs && (!request->argv || !*request->argv))
                return err_plain(err, EINVAL, "request: argv is missing");
        if (request->op == AGENT_OP_SIGNAL && (request->signal < 1 || request->signal > SIGNAL_MAX))
                return err_plain(err, EINVAL, "request: signal %u is not 1 to %d", request->signal,
                                 SIGNAL_MAX);
        if (request->op == AGENT_OP_CPUS && request->count < 1)
                return err_plain(err, EINVAL, "request: count 0 of processors is not 1 or more");
        bool names = request->op == AGENT_OP_EXTRACT || request->op == AGENT_OP_ARCHIVE;
        if (names && (!request->path || !request->container))
                return err_plain(err, EINVAL, "request: path or container is missing");
        if (request->owner_length != 0 && request->owner_length != 2)
                return err_plain(err, EINVAL, "request: owner is not two numbers");
        if (request->rows > SIZE_LIMIT || request->columns > SIZE_LIMIT)
                return err_plain(err, EINVAL, "request: a terminal of %u x %u is too large",
                                 request->rows, request->columns);
        return 0;
}

int agent_request_parse(const char *text, size_t size, struct agent_request *ret, struct err *err)
{
        int r = json_decode_text(&request_shape, text, size, ret, err);
        if (r == 0)
                r = check_request(ret, err);
        if (r < 0)
                agent_request_finish(ret);
        return r;
}

static bool is_printable(const char *text)
{
        for (; text && *text; text++)
                if (*text < 0x20 || *text > 0x7e)
                        return false;
        return true;
}

/* They go to a terminal as they are. */
static int check_processes(const struct agent_reply *reply, struct err *err)
{
        if (reply->processes_length > AGENT_PROCESSES_MAX)
                return err_plain(err, E2BIG, "reply: %zu processes are more than %d",
                                 reply->processes_length, AGENT_PROCESSES_MAX);
        for (size_t i = 0; i < reply->processes_length; i++) {
                const struct agent_process *p = &reply->processes[i];
                if (!is_printable(p->name) || !is_printable(p->command) || !is_printable(p->state))
                        return err_plain(err, EPROTO, "reply: process %u: its texts are not plain",
                                         p->pid);
                if (p->command && strlen(p->command) > AGENT_COMMAND_MAX)
                        return err_plain(err, EPROTO, "reply: process %u: its command is too long",
                                         p->pid);
        }
        return 0;
}

int agent_reply_parse(const char *text, size_t size, struct agent_reply *ret, struct err *err)
{
        int r = json_decode_text(&reply_shape, text, size, ret, err);
        if (r == 0 && ret->has_exit && (ret->exit < 0 || ret->exit > 255))
                r = err_plain(err, EPROTO, "reply: exit %d is not 0 to 255", ret->exit);
        if (r == 0 && (ret->size_bytes < 0 || (!str_empty(ret->link) && *ret->link != '/')))
                r = err_plain(err, EPROTO, "reply: no file is like that");
        if (r == 0)
                r = check_processes(ret, err);
        if (r < 0)
                agent_reply_finish(ret);
        return r;
}

static void put(const struct json_shape *shape, const void *value, struct buf *to)
{
        auto_free char *text = json_encode_text(shape, value, false);
        buf_puts(to, text);
        buf_putc(to, '\n');
}

void agent_request_put(const struct agent_request *request, struct buf *to)
{
        put(&request_shape, request, to);
}

void agent_reply_put(const struct agent_reply *reply, struct buf *to)
{
        put(&reply_shape, reply, to);
}

int message_take_line(struct buf *from, char **ret, size_t *ret_size, struct err *err)
{
        const char *end = from->size ? memchr(from->data, '\n', from->size) : NULL;
        size_t size = end ? (size_t)(end - from->data) : from->size;
        if (size > MESSAGE_SIZE_MAX)
                return err_plain(err, EMSGSIZE, "a message of more than %zu bytes",
                                 MESSAGE_SIZE_MAX);
        if (!end)
                return 0;
        *ret = xcalloc(size + 1, 1); /* with any NULs, which the parser refuses */
        memcpy(*ret, from->data, size);
        *ret_size = size;
        buf_consume(from, size + 1);
        return 1;
}
