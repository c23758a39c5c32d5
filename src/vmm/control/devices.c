#include "vmm/control/devices.h"

#include <assert.h>
#include <ctype.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/str.h"
#include "codec/json.h"
#include "vmm/block/disk.h"
#include "vmm/hotplug/hotplug.h"

/* One more than any device takes: too many are told from enough. */
static_assert(HTTP_FDS_LIMIT == DISK_DEPTH_MAX + 1 && NET_PAIRS <= DISK_DEPTH_MAX,
              "descriptors of a device");

#define NAME_MAX_LENGTH 32
#define GUEST_TIME_NS   (10 * NS_PER_S) /* to let go of a device */

static bool is_name(const char *name)
{
        size_t length = strlen(name);
        for (const char *c = name; *c; c++)
                if (!isalnum((unsigned char)*c) && *c != '-' && *c != '_')
                        return false;
        return length > 0 && length <= NAME_MAX_LENGTH;
}

static void list_one(void *arg, const char *name, const char *kind, bool leaving)
{
        struct json_object *o = json_object_new_object();
        json_object_object_add(o, "name", json_object_new_string(name));
        json_object_object_add(o, "kind", json_object_new_string(kind));
        json_object_object_add(o, "leaving", json_object_new_boolean(leaving));
        json_object_array_add(arg, o);
}

void devices_list(struct http_request *request, struct vm *vm)
{
        struct json_object *array = json_object_new_array();
        hotplug_each(vm->hotplug, list_one, array);
        http_reply_json(request, 200, array);
}

static int status_of(int r)
{
        switch (r) {
        case -EEXIST:
        case -ENOSPC:
        case -EBUSY:
        case -EALREADY:
                return 409;
        case -ENOENT:
                return 404;
        default:
                return 400;
        }
}

void devices_attach(struct http_request *request, struct vm *vm)
{
        const char *name = http_request_param(request, "name");
        struct vm_attachment what = { 0 };
        struct err err = { 0 };
        size_t size;
        const char *body = http_request_body(request, &size);
        int fds[HTTP_FDS_LIMIT];
        unsigned length = 0;
        int r = 0;
        while (length < HTTP_FDS_LIMIT && (fds[length] = http_request_take_fd(request)) >= 0)
                length++;
        if (!is_name(name))
                r = err_plain(&err, EINVAL, "'%s' is no name: letters, digits, - and _, up to %d",
                              name, NAME_MAX_LENGTH);
        if (r == 0)
                r = vm_attachment_decode(body, size, &what, &err);
        if (r == 0 && !length)
                r = err_plain(
                        &err, EBADF,
                        "device '%s': its file or tap comes as a descriptor with the request; "
                        "isle-vmm --attach does that",
                        name);
        if (r == 0)
                r = vm_attach(vm, name, &what, fds, length, &err);
        else
                while (length > 0)
                        close_fd(&fds[--length]);
        vm_attachment_finish(&what);
        if (r < 0)
                http_reply_error(request, status_of(r), "%s", err_text(&err));
        else
                http_reply(request, 204, NULL, NULL, 0);
}

/* ---- detaching: the answer waits for the guest ---- */

struct detachment {
        struct http_request *request;
        struct hotplug *hotplug;
        struct loop_source *timer;
        char name[NAME_MAX_LENGTH + 1];
};

/* The request is answered, or its client gone. */
static void closed(void *arg)
{
        struct detachment *d = arg;
        hotplug_stop_waiting(d->hotplug, d);
        loop_source_destroy(d->timer);
        free(d);
}

static void gone(void *arg)
{
        const struct detachment *d = arg;
        http_reply(d->request, 204, NULL, NULL, 0);
}

static void too_late(void *arg)
{
        struct detachment *d = arg;
        hotplug_stop_waiting(d->hotplug, d);
        http_reply_error(d->request, 504,
                         "the guest has not let go of '%s' within %lld s; it may do so later",
                         d->name, (long long)(GUEST_TIME_NS / NS_PER_S));
}

void devices_detach(struct http_request *request, struct vm *vm)
{
        const char *name = http_request_param(request, "name");
        struct err err = { 0 };
        struct detachment *d = new0(struct detachment);
        d->request = request;
        d->hotplug = vm->hotplug;
        memcpy(d->name, name, strnlen(name, NAME_MAX_LENGTH));
        int r = loop_timer(vm->machine->loop, too_late, d, &d->timer, &err);
        if (r == 0)
                r = hotplug_unplug(vm->hotplug, name, gone, d, &err);
        if (r < 0) {
                loop_source_destroy(d->timer);
                free(d);
                http_reply_error(request, status_of(r), "%s", err_text(&err));
                return;
        }
        loop_timer_arm(d->timer, GUEST_TIME_NS);
        http_request_on_close(request, closed, d);
}
