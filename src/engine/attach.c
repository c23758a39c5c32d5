/* Clients that attach. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/core.h"
#include "engine/logs.h"
#include "engine/run.h"

#define DEFAULT_DETACH_KEYS "ctrl-p,ctrl-q"
#define ATTACHES_MAX        64

_Static_assert(ATTACH_EARLY_MAX == MONITOR_EARLY_MAX, "what the API lets through must fit");

/* One key: "a" or "ctrl-a" (a … z, @, [, \, ], ^, _). -1 where it is not one. */
static int parse_key(const char *text)
{
        const char *control = str_after(text, "ctrl-");
        if (!control)
                return text[0] && !text[1] ? (unsigned char)text[0] : -1;
        if (!control[0] || control[1])
                return -1;
        if (control[0] >= 'a' && control[0] <= 'z')
                return control[0] - 'a' + 1;
        const char *found = strchr("@[\\]^_", control[0]);
        return !found ? -1 : control[0] == '@' ? 0 : (int)(found - "@[\\]^_") + 26;
}

static int parse_keys(const char *text, uint8_t *keys, size_t *ret_size, struct err *err)
{
        size_t size = 0;
        auto_strv parts = str_split(str_empty(text) ? DEFAULT_DETACH_KEYS : text, ',');
        for (char **part = parts; *part; part++) {
                int key = parse_key(*part);
                if (key < 0 || size == MONITOR_KEYS_MAX)
                        return err_plain(err, EINVAL, "Invalid escape keys (%s) provided", text);
                keys[size++] = (uint8_t)key;
        }
        *ret_size = size;
        return 0;
}

int detach_keys_check(const char *text, struct err *err)
{
        uint8_t keys[MONITOR_KEYS_MAX];
        size_t size;
        return parse_keys(text, keys, &size, err);
}

int attach_message(const struct attach_options *options, uint8_t *keys, struct monitor_message *ret,
                   struct err *err)
{
        size_t size;
        int r = parse_keys(options->detach_keys, keys, &size, err);
        if (r < 0)
                return r;
        if (options->early_size > MONITOR_EARLY_MAX)
                return err_plain(err, EMSGSIZE, "more than %d bytes of input before the reply",
                                 MONITOR_EARLY_MAX);
        *ret = (struct monitor_message){
                .kind = MONITOR_ATTACH,
                .flags = (options->in ? MONITOR_ATTACH_IN : 0) |
                         (options->out ? MONITOR_ATTACH_OUT : 0) |
                         (options->err ? MONITOR_ATTACH_ERR : 0),
                .keys = keys,
                .keys_size = size,
                .early = options->early,
                .early_size = options->early_size,
        };
        return 0;
}

static void attach_free(struct pending_attach *attach)
{
        list_remove(&attach->node);
        close_fd(&attach->fd);
        free(attach->early);
        free(attach);
}

void attaches_drop(struct instance *instance)
{
        list_for_each_safe (struct pending_attach, attach, &instance->private->attaches, node)
                attach_free(attach);
}

void attaches_send(struct instance *instance)
{
        list_for_each_safe (struct pending_attach, attach, &instance->private->attaches, node) {
                struct monitor_message message = {
                        .kind = MONITOR_ATTACH,
                        .flags = attach->flags,
                        .keys = attach->keys,
                        .keys_size = attach->keys_size,
                        .early = attach->early,
                        .early_size = attach->early_size,
                };
                link_send(&instance->private->run->link, &message, attach->fd);
                attach_free(attach);
        }
}

static int keep(struct instance *instance, const struct monitor_message *message, int *fd,
                struct err *err)
{
        size_t length = 0;
        list_for_each (struct pending_attach, other, &instance->private->attaches, node)
                length++;
        if (length >= ATTACHES_MAX)
                return err_plain(err, EBUSY, "too many clients wait for %s to start",
                                 instance->name);
        struct pending_attach *attach = new0(struct pending_attach);
        *attach = (struct pending_attach){
                .fd = take_fd(*fd),
                .flags = message->flags,
                .keys_size = message->keys_size,
                .early = message->early_size ? xmemdup(message->early, message->early_size) : NULL,
                .early_size = message->early_size,
        };
        memcpy(attach->keys, message->keys, message->keys_size);
        list_append(&instance->private->attaches, &attach->node);
        return 0;
}

int instance_attach(struct instance *instance, const struct attach_options *options, int client_fd,
                    struct err *err)
{
        auto_fd fd = client_fd;
        uint8_t keys[MONITOR_KEYS_MAX];
        struct monitor_message message;
        int r = attach_message(options, keys, &message, err);
        if (r < 0)
                return r;
        if (instance->state == INSTANCE_PAUSED)
                return err_plain(err, EBUSY,
                                 "Container %s is paused. Unpause the container before attach",
                                 instance->name);
        if (options->logs || !options->stream)
                return attach_with_logs(instance, options, &message, take_fd(fd), err);
        INSTANCE_EVENT(instance, "attach");
        struct run *run = instance->private->run;
        if (run && run->link.fd >= 0 && run->phase < RUN_FAILED) {
                r = link_send(&run->link, &message, fd);
                return r < 0 ? err_set(err, -r, "hand the client to the monitor of %s",
                                       instance->name)
                             : 0;
        }
        return keep(instance, &message, &fd, err);
}

int instance_resize(struct instance *instance, uint16_t rows, uint16_t columns, struct err *err)
{
        struct run *run = instance->private->run;
        if (!run || run->link.fd < 0 || run->phase >= RUN_FAILED)
                return err_plain(err, EBUSY, "Container %s is not running", instance->name);
        struct monitor_message message = { .kind = MONITOR_RESIZE,
                                           .rows = rows,
                                           .columns = columns };
        int r = link_send(&run->link, &message, -1);
        return r < 0 ? err_set(err, -r, "resize the terminal of %s", instance->name) : 0;
}
