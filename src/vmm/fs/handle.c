#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/str.h"
#include "vmm/fs/request.h"

/* *number: 0 for a new one, which is put there. */
static int enter(struct fs_server *s, struct node *node, int fd, bool writable, uint64_t *number)
{
        struct handle *handle = new0(struct handle);
        *handle = (struct handle){
                .number = *number, .node = node, .fd = fd, .writable = writable, .references = 1
        };
        pthread_mutex_init(&handle->position, NULL);
        pthread_mutex_lock(&s->lock);
        int r = *number ? slots_put(&s->handles, *number, handle)
                        : slots_add(&s->handles, handle, &handle->number);
        if (r == 0) {
                node->references++;
                *number = handle->number;
        }
        pthread_mutex_unlock(&s->lock);
        if (r < 0) {
                close(fd);
                pthread_mutex_destroy(&handle->position);
                free(handle);
        }
        return r;
}

int handle_add(struct fs_server *s, struct node *node, int fd, bool writable, uint64_t *ret)
{
        uint64_t number = 0;
        int r = enter(s, node, fd, writable, &number);
        if (r == 0)
                *ret = number;
        return r;
}

int handle_put_back(struct fs_server *s, struct node *node, int fd, bool writable, uint64_t number)
{
        if (number)
                return enter(s, node, fd, writable, &number);
        close(fd);
        return -EINVAL;
}

struct handle *handle_get(struct fs_server *s, uint64_t number)
{
        pthread_mutex_lock(&s->lock);
        struct handle *handle = slots_get(&s->handles, number);
        if (handle)
                handle->references++;
        pthread_mutex_unlock(&s->lock);
        return handle;
}

void handle_put(struct fs_server *s, struct handle *handle)
{
        pthread_mutex_lock(&s->lock);
        bool last = --handle->references == 0;
        pthread_mutex_unlock(&s->lock);
        if (!last)
                return;
        close(handle->fd);
        node_put(s, handle->node);
        pthread_mutex_destroy(&handle->position);
        free(handle);
}

int handle_release(struct fs_server *s, uint64_t number)
{
        pthread_mutex_lock(&s->lock);
        struct handle *handle = slots_get(&s->handles, number);
        slots_remove(&s->handles, number);
        pthread_mutex_unlock(&s->lock);
        if (!handle)
                return -EBADF;
        handle_put(s, handle);
        return 0;
}

void handle_release_all(struct fs_server *s)
{
        for (uint32_t i = 0;; i++) {
                pthread_mutex_lock(&s->lock);
                bool end = i >= s->handles.length;
                struct handle *handle = end ? NULL : s->handles.slots[i].object;
                if (handle)
                        slots_remove(&s->handles, handle->number);
                pthread_mutex_unlock(&s->lock);
                if (end)
                        break;
                if (handle)
                        handle_put(s, handle);
        }
}
