/* Hostile server: the bytes are what the client receives. The first one chooses the
 * method and the size of the reads. */
#include "http/client.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define INPUT_LIMIT_BYTES (96u << 10) /* what a socket takes without a reader */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        int pair[2];
        struct http_client *client;
        struct http_exchange *exchange;
        struct err err = { 0 };
        if (size < 1 || size > INPUT_LIMIT_BYTES ||
            socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
                return 0;
        if (http_client_create("unix:///nonexistent/fuzz", &client, &err) < 0)
                abort();
        client->idle_fd = pair[0];
        const char *method = data[0] & 1 ? "HEAD" : "GET";
        char *const *headers = data[0] & 2 ? http_upgrade_headers : NULL;
        if (http_exchange_begin(client, method, "/", headers, NULL, 0, &exchange, &err) < 0)
                abort();
        if (send(pair[1], data + 1, size - 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && size > 1)
                abort();
        close(pair[1]);

        int status = http_exchange_status(exchange, &err);
        if (status >= 0 && (status < 100 || status > 999))
                abort();
        if (status == 101) {
                int fd = -1;
                struct buf early = { 0 };
                if (http_exchange_hijack(exchange, &fd, &early, &err) < 0)
                        abort();
                close(fd);
                buf_finish(&early);
        } else if (status > 0) {
                char body[4096];
                size_t step = 1 + (size_t)(data[0] >> 2) * 65;
                size_t total = 0;
                ssize_t got;
                while ((got = http_exchange_read(exchange, body, step, &err)) > 0)
                        total += (size_t)got;
                if (total > size)
                        abort(); /* nothing is made up */
                http_exchange_header(exchange, "Content-Type");
        }
        if (status < 0 && err.code == 0)
                abort(); /* every failure tells its story */
        http_exchange_end(exchange);
        http_client_destroy(client);
        return 0;
}
