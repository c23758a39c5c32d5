/* A TCP or Unix server that plays a script: for what a proper server never does. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "base/buf.h"

#define SCRIPT_STEPS_LIMIT 8

/* One connection: waits for `wait` in what the client sends (NULL: nothing), sends
 * `send` (size 0: strlen), and closes unless the next step stays on it. */
struct script_step {
        const char *wait;
        const char *send;
        size_t size;
        bool keep; /* the next step goes on with this connection */
        bool hold; /* keeps the connection open, silent, until the script is stopped */
};

struct script {
        int listen_fd, stop_fd[2];
        pthread_t thread;
        const struct script_step *steps;
        size_t length;
        char url[64];      /* http://127.0.0.1:PORT */
        struct buf heard;  /* all the client sent; read it after script_stop() */
        atomic_int played; /* steps */
};

void script_start(struct script *script, const struct script_step *steps, size_t length);
void script_stop(struct script *script);
