#include "image/stream.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/str.h"

/* Blocks [read, written) are full; `borrowed` of them (0 or 1) is at the reader;
 * block `written` is being filled by the writer alone and holds `filling` bytes. */
struct stream {
        pthread_mutex_t mutex;
        pthread_cond_t changed;
        char *blocks;
        size_t sizes[STREAM_BLOCKS];
        size_t read, written; /* count up for ever */
        size_t filling;
        bool borrowed, ended, aborted;
        int result;
};

struct stream *stream_create(void)
{
        struct stream *stream = new0(struct stream);
        pthread_mutex_init(&stream->mutex, NULL);
        pthread_cond_init(&stream->changed, NULL);
        stream->blocks = mmap(NULL, (size_t)STREAM_BLOCKS * STREAM_BLOCK_SIZE,
                              PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (stream->blocks == MAP_FAILED)
                abort();
        return stream;
}

void stream_destroy(struct stream *stream)
{
        if (!stream)
                return;
        munmap(stream->blocks, (size_t)STREAM_BLOCKS * STREAM_BLOCK_SIZE);
        pthread_cond_destroy(&stream->changed);
        pthread_mutex_destroy(&stream->mutex);
        free(stream);
}

/* The block being filled becomes readable; waits until there is another. */
static int publish(struct stream *stream)
{
        int r = 0;
        pthread_mutex_lock(&stream->mutex);
        stream->sizes[stream->written % STREAM_BLOCKS] = stream->filling;
        stream->written++;
        stream->filling = 0;
        pthread_cond_broadcast(&stream->changed);
        while (stream->written - stream->read >= STREAM_BLOCKS && !stream->aborted)
                pthread_cond_wait(&stream->changed, &stream->mutex);
        if (stream->aborted)
                r = -EPIPE;
        pthread_mutex_unlock(&stream->mutex);
        return r;
}

int stream_write(struct stream *stream, const void *data, size_t size)
{
        while (size > 0) {
                char *block = stream->blocks + stream->written % STREAM_BLOCKS * STREAM_BLOCK_SIZE;
                size_t room = STREAM_BLOCK_SIZE - stream->filling;
                size_t n = size < room ? size : room;
                memcpy(block + stream->filling, data, n);
                stream->filling += n;
                data = (const char *)data + n;
                size -= n;
                if (stream->filling == STREAM_BLOCK_SIZE && publish(stream) < 0)
                        return -EPIPE;
        }
        return 0;
}

void stream_end(struct stream *stream, int r)
{
        if (stream->filling > 0)
                publish(stream);
        pthread_mutex_lock(&stream->mutex);
        stream->ended = true;
        stream->result = r;
        pthread_cond_broadcast(&stream->changed);
        pthread_mutex_unlock(&stream->mutex);
}

ssize_t stream_read(struct stream *stream, const void **ret)
{
        ssize_t n;
        pthread_mutex_lock(&stream->mutex);
        if (stream->borrowed) {
                stream->borrowed = false;
                stream->read++;
                pthread_cond_broadcast(&stream->changed);
        }
        while (stream->read == stream->written && !stream->ended)
                pthread_cond_wait(&stream->changed, &stream->mutex);
        if (stream->read == stream->written) {
                n = stream->result;
        } else {
                size_t slot = stream->read % STREAM_BLOCKS;
                stream->borrowed = true;
                *ret = stream->blocks + slot * STREAM_BLOCK_SIZE;
                n = (ssize_t)stream->sizes[slot];
        }
        pthread_mutex_unlock(&stream->mutex);
        return n;
}

void stream_abort(struct stream *stream)
{
        pthread_mutex_lock(&stream->mutex);
        stream->aborted = true;
        pthread_cond_broadcast(&stream->changed);
        pthread_mutex_unlock(&stream->mutex);
}
