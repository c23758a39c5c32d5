#include "vmm/control/call.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/str.h"
#include "http/client.h"
#include "vmm/virtio/net.h"
#include "vmm/virtio/tap.h"

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

/* `fd` -1: none goes along. */
static int call(const char *socket, const char *method, const char *name, const struct buf *body,
                int fd, struct err *err)
{
        auto_free char *url = xasprintf("unix://%s", socket);
        auto_free char *target = xasprintf("/vm/devices/%s", name);
        struct http_client *client = NULL;
        struct http_response response = { 0 };
        int r = http_client_create(url, &client, err);
        if (r == 0)
                http_client_pass_fd(client, fd);
        if (r == 0)
                r = http_call(client, method, target, body ? "application/json" : NULL,
                              body ? body->data : NULL, body ? body->size : 0, &response, err);
        if (r == 0)
                r = judge(&response, err);
        http_response_finish(&response);
        http_client_destroy(client);
        return r;
}

static int open_network(struct vm_network *n, int *ret_fd, struct err *err)
{
        int fds[NET_PAIRS];
        int r = tap_open(n->tap, 1, n->mtu, fds, err);
        if (r < 0)
                return r;
        *ret_fd = fds[0];
        return 0;
}

static void name_network(struct vm_network *n)
{
        uint8_t mac[6];
        if (n->mac)
                return;
        net_mac_of_name(n->tap, mac);
        n->mac = xasprintf("%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4],
                           mac[5]);
}

int control_attach(const char *socket, const char *name, struct vm_config *c, struct err *err)
{
        auto_buf body = { 0 };
        auto_fd fd = -1;
        if (c->networks_length == 1)
                name_network(&c->networks[0]);
        int r = vm_attachment_encode(c, &body, err);
        if (r < 0)
                return r;
        if (c->networks_length) {
                r = open_network(&c->networks[0], &fd, err);
        } else {
                const struct vm_disk *d = &c->disks[0];
                fd = open(d->path, (d->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY);
                if (fd < 0)
                        r = err_set(err, errno, "disk '%s'", d->path);
        }
        return r < 0 ? r : call(socket, "PUT", name, &body, fd, err);
}

int control_detach(const char *socket, const char *name, struct err *err)
{
        return call(socket, "DELETE", name, NULL, -1, err);
}
