#include "api/task.h"

#include <stdlib.h>

#include "loop/workers.h"

static void task_closed(void *arg)
{
        struct task *task = arg;
        task->request = NULL;
        task->cancelled = true;
}

static void task_run(void *arg)
{
        struct task *task = arg;
        task->run(task);
}

static void task_done(void *arg)
{
        struct task *task = arg;
        if (task->request) {
                http_request_on_close(task->request, NULL, NULL);
                if (task->r < 0)
                        api_fail(task->request, task->r, &task->err);
                else
                        task->reply(task);
        }
        if (task->finish)
                task->finish(task);
        free(task);
}

void task_submit(struct api *api, struct http_request *request, struct task *task)
{
        task->api = api;
        task->request = request;
        http_request_on_close(request, task_closed, task);
        workers_submit(api->workers, task_run, task_done, task);
}
