#include "vmm/control/call.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/rand.h"
#include "base/str.h"
#include "http/client.h"
#include "vmm/block/disk.h"
#include "vmm/snapshot/snapshot.h"
#include "vmm/virtio/net.h"
#include "vmm/virtio/tap.h"

#define DEVICES "/vm/devices/"

struct answer {
        char *message;
};

static const struct json_field answer_fields[] = {
        JSON_FIELD(struct answer, "message", JSON_STRING, message, 0),
};
static const struct json_shape answer_shape = JSON_SHAPE("answer", struct answer, answer_fields);

static int judge(const struct http_response *response, struct err *err)
{
        struct answer answer = { 0 };
        if (response->status == 204)
                return 0;
        (void)json_decode_text(&answer_shape, response->body, response->size, &answer, NULL);
        int r = err_plain(err, EREMOTEIO, "%s", answer.message ? answer.message : "no answer");
        json_free(&answer_shape, &answer);
        return r;
}

/* `files`: what goes along. `ret` NULL: nothing is expected but that it is done. */
static int call(const char *socket, const char *method, const char *target, const struct buf *body,
                const struct disk_chain *files, struct buf *ret, struct err *err)
{
        auto_free char *url = xasprintf("unix://%s", socket);
        struct http_client *client = NULL;
        struct http_response response = { 0 };
        int r = http_client_create(url, &client, err);
        if (r == 0)
                http_client_pass_fds(client, files->fds, files->length);
        if (r == 0)
                r = http_call(client, method, target, body ? "application/json" : NULL,
                              body ? body->data : NULL, body ? body->size : 0, &response, err);
        if (r == 0 && ret && response.status == 200)
                r = buf_append(ret, response.body, response.size);
        else if (r == 0)
                r = judge(&response, err);
        http_response_finish(&response);
        http_client_destroy(client);
        return r;
}

/* Opened as for a machine that is yet to start, with all that is beneath; its descriptors are
 * what is wanted of it. */
static int open_disk(const struct vm_disk *d, struct disk_chain *ret, struct err *err)
{
        const struct disk_options options = {
                .path = d->path, .format = d->format, .read_only = d->read_only, .copies = ret
        };
        struct disk *disk;
        int r = disk_open(&options, &disk, err);
        if (r == 0)
                disk_close(disk);
        return r;
}

static int open_network(const struct vm_network *n, struct disk_chain *ret, struct err *err)
{
        unsigned pairs = n->queues ? n->queues : 1;
        int r = tap_open(n->tap, pairs, n->mtu, ret->fds, err);
        if (r == 0)
                ret->length = pairs;
        return r;
}

static void name_network(struct vm_network *n)
{
        uint8_t mac[6];
        if (n->mac || !n->tap)
                return;
        net_mac_of_name(n->tap, mac);
        n->mac = xasprintf("%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4],
                           mac[5]);
}

int control_attach(const char *socket, const char *name, struct vm_config *c, struct err *err)
{
        auto_buf body = { 0 };
        struct disk_chain files = { 0 };
        if (c->networks_length == 1)
                name_network(&c->networks[0]);
        auto_free char *target = xasprintf(DEVICES "%s", name);
        int r = vm_attachment_encode(c, &body, err);
        if (r == 0)
                r = c->networks_length ? open_network(&c->networks[0], &files, err)
                                       : open_disk(&c->disks[0], &files, err);
        if (r == 0)
                r = call(socket, "PUT", target, &body, &files, NULL, err);
        disk_chain_close(&files);
        return r;
}

int control_detach(const char *socket, const char *name, struct err *err)
{
        const struct disk_chain none = { 0 };
        auto_free char *target = xasprintf(DEVICES "%s", name);
        return call(socket, "DELETE", target, NULL, &none, NULL, err);
}

/* ---- snapshots ---- */

/* Both files of a snapshot, durable, in the directory `at`, which is there. */
static int save_into(const char *socket, const char *at, struct err *err)
{
        auto_free char *memory = xasprintf("%s/" SNAPSHOT_MEMORY, at);
        auto_free char *state = xasprintf("%s/" SNAPSHOT_STATE, at);
        auto_buf bytes = { 0 };
        auto_fd fd = open(memory, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
                return err_set(err, errno, "create '%s'", memory);
        const struct disk_chain file = { .fds = { fd }, .length = 1 };
        int r = call(socket, "PUT", "/vm/snapshot", NULL, &file, &bytes, err);
        if (r == 0 && fsync(fd) < 0)
                r = err_set(err, errno, "write '%s'", memory);
        return r < 0 ? r : file_replace(AT_FDCWD, state, bytes.data, bytes.size, 0600, true, err);
}

static int sync_parent(const char *path, struct err *err)
{
        const char *slash = strrchr(path, '/');
        auto_free char *parent = slash ? xstrndup(path, (size_t)(slash - path) + 1) : xstrdup(".");
        auto_fd fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        return fd < 0 || fsync(fd) < 0 ? err_set(err, errno, "sync '%s'", parent) : 0;
}

int control_snapshot(const char *socket, const char *dir, struct err *err)
{
        char random[17];
        rand_hex(random, 16);
        auto_free char *temporary = xasprintf("%s.tmp-%s", dir, random);
        if (faccessat(AT_FDCWD, dir, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
                return err_plain(err, EEXIST,
                                 "snapshot '%s': there is something of that name already", dir);
        if (mkdir(temporary, 0700) < 0)
                return err_set(err, errno, "make directory '%s'", temporary);
        int r = save_into(socket, temporary, err);
        if (r == 0 && renameat2(AT_FDCWD, temporary, AT_FDCWD, dir, RENAME_NOREPLACE) < 0)
                r = err_set(err, errno, "snapshot '%s'", dir);
        if (r < 0)
                (void)file_remove_tree(AT_FDCWD, temporary, NULL);
        return r < 0 ? r : sync_parent(dir, err);
}
