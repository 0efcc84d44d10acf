/* A strategy that does what FORGETLAB_ATTACK names, in batches from step FORGETLAB_ATTACK_FROM (10) of the arm on.
 * Each is("…") is a mode; tests/attacks/hostile.rs finds them here. */
#define _GNU_SOURCE
#include "forgetlab_strategy.h"

#include <fcntl.h>
#include <fenv.h>
#include <locale.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BIG (UINT64_C(1) << 63)
#define TEXT(s) (const uint8_t *)(s), sizeof(s) - 1

static int is(const char *name) {
    const char *mode = getenv("FORGETLAB_ATTACK");
    return mode && !strcmp(mode, name);
}
static int begins(const char *name) {
    const char *mode = getenv("FORGETLAB_ATTACK");
    return mode && !strncmp(mode, name, strlen(name));
}
static uint64_t from_step(void) {
    const char *from = getenv("FORGETLAB_ATTACK_FROM");
    return from ? strtoull(from, NULL, 10) : 10;
}

static const fl_host *kept_host;
static void *kept_context;
static uint64_t batches;

static void crash(void) { *(volatile int *)8 = 1; }
static void sleep_forever(void) { for (;;) usleep(10000); }
static int32_t fail(fl_message *message, const char *text) {
    message->len = strlen(text);
    memcpy(message->text, text, message->len < message->capacity ? message->len : message->capacity);
    return FL_FAILED;
}

static void round_upward(void) { fesetround(FE_UPWARD); }
static void flush_to_zero(void) {
#if defined(__x86_64__)
    unsigned control;
    __asm__("stmxcsr %0" : "=m"(control));
    control |= 0x8040;
    __asm__("ldmxcsr %0" : : "m"(control));
#endif
}
static void write_to_terminal(void) {
    printf("\033[2J\033]0;owned\007printed\n");
    fflush(stdout);
    fprintf(stderr, "\033[?1049l\033[41mprinted\n");
}
static int change_folder(const char *to) { return chdir(to); }

__attribute__((constructor)) static void loaded(void) {
    if (is("load-library-loop")) sleep_forever();
    if (is("load-library-exit")) exit(0);
    if (is("load-library-_exit")) _exit(0);
    if (is("load-library-abort")) abort();
    if (is("load-library-crash")) crash();
    if (is("load-library-print")) write_to_terminal();
    if (is("load-library-round")) round_upward();
    if (is("load-library-flush")) flush_to_zero();
    if (is("load-library-chdir")) change_folder("/");
    if (is("load-library-stop")) raise(SIGSTOP);
}

static int32_t create(const fl_host *host, const fl_create_args *args, void **out, fl_message *message) {
    (void)args;
    kept_host = host;
    kept_context = host->context;
    *out = malloc(64);
    if (is("create-null")) *out = NULL;
    if (is("create-status")) return 77;
    if (is("create-negative")) return -1;
    if (is("create-crash")) crash();
    if (is("create-exit")) exit(0);
    if (is("create-message-long")) return message->len = BIG, FL_FAILED;
    if (is("create-message-moved")) {
        message->text = (uint8_t *)16;
        message->capacity = BIG;
        message->len = 100;
        return FL_FAILED;
    }
    if (is("create-message-escape")) return fail(message, "\033]0;owned\007\033[2J\xff\xfe\r\n\xe2\x80\xae");
    if (is("create-draw")) {
        fl_draw_request request = {.struct_size = sizeof request, .task = FL_TASK_ALL, .rows = 4};
        fl_sequences drawn = {.struct_size = sizeof drawn};
        host->draw_old(host->context, &request, &drawn, message);
    }
    return FL_OK;
}

static int32_t phase_started(void *self, const fl_host *host, const fl_phase *phase, fl_message *message) {
    (void)self, (void)host, (void)message;
    if (is("phase-exit") && phase->index > 1) exit(0);
    if (is("phase-_exit") && phase->index > 1) _exit(0);
    if (is("phase-loop") && phase->index > 1) sleep_forever();
    return FL_OK;
}

static int32_t draw(const fl_host *host, uint64_t rows, fl_replay_batch *batch, fl_message *message) {
    fl_draw_request request = {.struct_size = sizeof request, .task = FL_TASK_ALL, .rows = rows};
    fl_sequences drawn = {
        .struct_size = sizeof drawn,
        .tokens = batch->tokens,
        .weights = batch->weights,
        .tokens_capacity = batch->tokens_capacity,
        .lengths = batch->lengths,
        .rows_capacity = batch->rows_capacity,
    };
    int32_t status = host->draw_old(host->context, &request, &drawn, message);
    if (status != FL_OK) return status;
    batch->rows = drawn.rows;
    batch->seq_len = drawn.seq_len;
    batch->has_weights = 1;
    return FL_OK;
}

/* A batch that is not what it says. */
static void spoil(fl_replay_batch *batch) {
    uint64_t n = batch->rows * batch->seq_len;
    if (is("batch-rows-huge")) batch->rows = BIG;
    if (is("batch-length-huge")) batch->seq_len = BIG;
    if (is("batch-wraps")) batch->rows = batch->seq_len = UINT64_C(1) << 32;
    if (is("batch-no-length")) batch->seq_len = 0;
    if (is("batch-no-rows")) batch->rows = 0;
    if (is("batch-more-rows")) batch->rows = batch->rows_capacity + 1;
    if (is("batch-struct-size")) batch->struct_size = 0;
    if (is("batch-moved")) {
        batch->tokens = (uint32_t *)8;
        batch->lengths = (uint32_t *)24;
        batch->weights = NULL;
        batch->tokens_capacity = BIG;
    }
    if (is("batch-one-past")) batch->tokens[batch->tokens_capacity] = 0xdead;
    if (is("batch-far-past")) memset(batch->tokens + batch->tokens_capacity, 7, 400000);
    if (is("batch-ids")) batch->tokens[3] = UINT32_MAX;
    if (is("batch-nan")) batch->weights[1] = NAN;
    if (is("batch-infinite")) batch->weights[1] = INFINITY;
    for (uint64_t k = 0; k < n; k++) {
        if (is("batch-weights-huge")) batch->weights[k] = 3e38f;
        if (is("batch-weights-tiny")) batch->weights[k] = 1e-45f;
        if (is("batch-weights-zero")) batch->weights[k] = 0;
    }
    if (is("batch-flag")) batch->has_weights = 2;
    if (is("batch-objective")) batch->has_row_objectives = 1, batch->row_objectives[0] = 255;
    if (is("batch-coeff-nan")) batch->has_coeff = 1, batch->coeff = NAN;
    if (is("batch-coeff-huge")) batch->has_coeff = 1, batch->coeff = 1e308;
    if (is("batch-coeff-negative")) batch->has_coeff = 1, batch->coeff = -1;
    if (is("batch-teacher")) batch->teacher = 9;
    if (is("batch-teacher-supplied")) batch->teacher = FL_TEACHER_SUPPLIED, batch->teacher_k = BIG;
}

static int32_t deeper(uint64_t n) {
    volatile char room[1 << 16];
    memset((char *)room, 1, sizeof room);
    return n == BIG ? 0 : deeper(n + 1) + room[n & 1023];
}

/* What ends the process, or does not end. */
static void end_process(void) {
    if (is("end-exit")) exit(0);
    if (is("end-_exit")) _exit(0);
    if (is("end-exit-3")) exit(3);
    if (is("end-abort")) abort();
    if (is("end-crash")) crash();
    if (is("end-fpe")) raise(SIGFPE);
    if (is("end-illegal")) raise(SIGILL);
    if (is("end-kill")) raise(SIGKILL);
    if (is("end-term")) raise(SIGTERM);
    if (is("end-stack")) deeper(0);
    if (is("end-loop")) sleep_forever();
    if (is("end-loop-hot")) for (volatile int i = 0;; i++) {}
}

/* What changes the process under the lab. */
static void change_process(void) {
    static int forked;
    if (is("process-fork")) {
        pid_t child = fork();
        if (!child) _exit(0);
        waitpid(child, NULL, 0);
    }
    if (is("process-fork-returns") && !forked++) (void)!fork();
    if (is("process-fork-keeps-lock") && !forked++ && !fork()) sleep(5), _exit(0);
    if (is("process-close-files")) for (int f = 3; f < 256; f++) close(f);
    if (is("process-replace-files")) {
        for (int f = 3; f < 256; f++) close(f);
        for (int k = 0; k < 20; k++) (void)!open("victim", O_RDWR | O_CREAT, 0644);
    }
    if (is("process-close-output")) for (int f = 0; f < 3; f++) close(f);
    if (is("process-block-signals")) {
        sigset_t all;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, NULL);
    }
    if (is("process-ignore-signals")) signal(SIGINT, SIG_IGN), signal(SIGTERM, SIG_IGN), signal(SIGHUP, SIG_IGN);
    if (is("process-chdir")) change_folder("/");
    if (is("process-folder-gone")) {
        char name[] = "goneXXXXXX";
        if (mkdtemp(name) && !change_folder(name)) rmdir(name);
    }
    if (is("process-locale")) setlocale(LC_ALL, "de_DE.UTF-8"), setlocale(LC_NUMERIC, "de_DE.UTF-8");
    if (is("process-no-environment")) clearenv();
    if (is("process-round")) round_upward();
    if (is("process-flush")) flush_to_zero();
    if (is("process-umask")) umask(0777);
    if (is("process-no-files")) setrlimit(RLIMIT_NOFILE, &(struct rlimit){3, 3});
    if (is("process-small-files")) setrlimit(RLIMIT_FSIZE, &(struct rlimit){1000, 1000});
    if (is("process-print")) write_to_terminal();
    if (is("process-memory")) free(malloc(UINT64_C(1) << 40));
}

static void *call_host(void *unused) {
    uint64_t random[4];
    usleep(1000);
    for (int i = 0; i < 2000; i++) {
        kept_host->random(kept_context, random, 4, NULL);
        kept_host->log(kept_context, FL_LOG_WARN, TEXT("from another thread"), NULL);
        kept_host->cancelled(kept_context);
    }
    return unused;
}
static void *crash_in_thread(void *unused) { return abort(), unused; }
static void *spin(void *unused) { return sleep_forever(), unused; }
static void start_threads(void) {
    pthread_t threads[4];
    if (is("thread-calls")) {
        for (int k = 0; k < 4; k++) pthread_create(threads + k, NULL, call_host, NULL);
        for (int k = 0; k < 4; k++) pthread_join(threads[k], NULL);
    }
    if (is("thread-calls-later") && !pthread_create(threads, NULL, call_host, NULL)) pthread_detach(*threads);
    if (is("thread-crashes") && !pthread_create(threads, NULL, crash_in_thread, NULL)) pthread_join(*threads, NULL);
    if (is("thread-spins") && !pthread_create(threads, NULL, spin, NULL)) pthread_detach(*threads);
}

/* What is told to the lab. */
static int32_t tell(const fl_host *host, fl_message *message) {
    static uint8_t long_text[1 << 20];
    if (is("tell-escapes")) {
        host->log(host->context, FL_LOG_ERROR, TEXT("\033[2J\033]0;owned\007\r\n\x9b" "2J\xe2\x80\xae\xc2\x9b" "31m"), message);
        host->metric(host->context, TEXT("\033[31mname\n\xe2\x80\xae"), 1, message);
    }
    if (is("tell-long")) host->log(host->context, FL_LOG_INFO, memset(long_text, 'A', sizeof long_text), sizeof long_text, message);
    if (is("tell-longer")) host->log(host->context, FL_LOG_INFO, long_text, BIG, message);
    for (int k = 0; k < 100000; k++) {
        char name[32];
        if (is("tell-flood")) host->log(host->context, FL_LOG_WARN, TEXT("flood flood flood"), message);
        else if (is("tell-names")) host->metric(host->context, (uint8_t *)name, (uint64_t)snprintf(name, sizeof name, "m%d", k), k, message);
        else break;
    }
    return is("tell-nan") ? host->metric(host->context, TEXT("x"), NAN, message) : FL_OK;
}

/* Requests that make no sense, or too much. */
static int32_t ask(const fl_host *host, uint64_t seq_len, fl_message *message) {
    static uint32_t small[64], many[1 << 20];
    uint32_t prompt[2] = {0, 1}, one[2] = {1, 1};
    uint64_t number, needed;
    float log_probs[64];
    void *context = host->context;
    fl_sequences out = {.struct_size = sizeof out};
    fl_draw_request d = {.struct_size = sizeof d, .task = FL_TASK_ALL, .rows = 1};
    if (is("ask-no-context")) return host->random(NULL, &number, 1, message);
    if (is("ask-wild-context")) return host->random((void *)64, &number, 1, message);
    if (is("ask-random-huge")) return host->random(context, (uint64_t *)small, BIG, message);
    if (is("ask-random-null")) return host->random(context, NULL, 5, message);
    if (is("ask-draw-null")) return host->draw_old(context, NULL, NULL, message);
    if (is("ask-no-message")) host->draw_old(context, NULL, NULL, NULL);
    if (is("ask-encode-huge")) return host->encode(context, (uint8_t *)small, BIG, small, 64, &needed, message);
    if (is("ask-encode-bytes")) return host->encode(context, (uint8_t *)"\xff\xfe", 2, small, 64, &needed, message);
    if (is("ask-decode-ids")) return host->decode(context, (uint32_t[]){UINT32_MAX, 5}, 2, (uint8_t *)small, 64, &needed, message);
    if (is("ask-decode-huge")) return host->decode(context, small, BIG, (uint8_t *)small, 64, &needed, message);
    if (is("ask-snapshot")) return host->keep_snapshot(context, 0, &number, message);
    if (begins("ask-draw-")) {
        if (is("ask-draw-size")) d.struct_size = 0;
        if (is("ask-draw-most")) d.rows = FL_MAX_ELEMENTS;
        if (is("ask-draw-many")) d.rows = 100000000;
        if (is("ask-draw-task")) d.task = 12345;
        if (is("ask-draw-nowhere")) out.tokens_capacity = out.rows_capacity = BIG;
        if (is("ask-draw-lies")) d.rows = 5000, out.tokens = small, out.tokens_capacity = out.rows_capacity = BIG;
        return host->draw_old(context, &d, &out, message);
    }
    if (begins("ask-generate-")) {
        fl_generate_request g = {.struct_size = sizeof g, .prompts = prompt, .prompt_lengths = one, .prompts_len = 1,
                                 .prompt_stride = 1, .length = seq_len, .temperature = 1, .top_p = 1};
        if (is("ask-generate-null")) g.prompts = NULL;
        if (is("ask-generate-count")) g.prompts_len = BIG;
        if (is("ask-generate-wraps")) g.prompts_len = UINT64_C(1) << 33, g.prompt_stride = UINT64_C(1) << 31;
        if (is("ask-generate-stride")) g.prompt_stride = 0;
        if (is("ask-generate-long")) g.length = BIG;
        if (is("ask-generate-nothing")) g.length = 0;
        if (is("ask-generate-temperature")) g.temperature = NAN;
        if (is("ask-generate-cold")) g.temperature = 1e-45f;
        if (is("ask-generate-hot")) g.temperature = 3e38f;
        if (is("ask-generate-top-p")) g.top_p = NAN;
        if (is("ask-generate-stops")) g.stop_tokens = small, g.stop_tokens_len = BIG;
        if (is("ask-generate-ids")) prompt[0] = UINT32_MAX;
        if (is("ask-generate-model")) g.model = 99;
        if (is("ask-generate-snapshot")) g.model = FL_MODEL_SNAPSHOT, g.snapshot = 7;
        if (is("ask-generate-virtual")) g.model = FL_MODEL_VIRTUAL_STEP;
        if (is("ask-generate-many")) {
            for (int k = 0; k < 1 << 20; k++) many[k] = 1;
            g.prompts = g.prompt_lengths = many, g.prompts_len = 1 << 20;
        }
        if (is("ask-generate-misaligned")) g.prompts = (uint32_t *)((char *)prompt + 1);
        out.tokens = small, out.tokens_capacity = 64, out.lengths = one, out.rows_capacity = 2;
        return host->generate(context, &g, &out, message);
    }
    if (begins("ask-score-")) {
        fl_score_request s = {.struct_size = sizeof s, .tokens = prompt, .lengths = one, .rows = 1, .seq_len = 1};
        fl_scores scores = {.struct_size = sizeof scores, .log_probs = log_probs, .log_probs_capacity = 64};
        if (is("ask-score-rows")) s.rows = BIG;
        if (is("ask-score-wraps")) s.rows = BIG, s.seq_len = 2;
        if (is("ask-score-nothing")) s.seq_len = 0;
        if (is("ask-score-top-k")) s.top_k = UINT32_MAX;
        if (is("ask-score-virtual")) s.model = FL_MODEL_VIRTUAL_STEP;
        if (is("ask-score-nowhere")) scores.log_probs = NULL;
        return host->score(context, &s, &scores, message);
    }
    return FL_OK;
}

static int32_t next_batch(void *self, const fl_host *host, const fl_step *step, fl_replay_batch *batch,
                          fl_message *message) {
    (void)self;
    batches++;
    if (step->phase->old_tasks_len == 0) return FL_NOTHING;
    int32_t status = draw(host, step->rows, batch, message);
    if (status != FL_OK || step->step < from_step()) return status;
    spoil(batch);
    end_process();
    change_process();
    start_threads();
    status = tell(host, message);
    if (status == FL_OK) status = ask(host, step->phase->seq_len, message);
    if (is("status-retry")) return FL_RETRY;
    if (is("status-retry-huge")) return batch->rows = batch->teacher_k = BIG, FL_RETRY;
    if (is("status-unknown")) return 99;
    if (is("status-cancelled")) return FL_CANCELLED;
    if (is("status-long-message")) {
        static char text[1 << 16];
        return fail(message, memset(text, 'x', sizeof text - 1));
    }
    while (is("wait-for-cancel")) {
        if (host->cancelled(host->context)) return FL_CANCELLED;
        usleep(1000);
    }
    if (is("random-by-clock")) batch->tokens[2] = (uint32_t)clock() % 10;
    return status;
}

static int32_t observe(void *self, const fl_host *host, const fl_observation *seen, fl_message *message) {
    (void)self;
    if (seen->step < from_step()) return FL_OK;
    if (is("observe-crash")) crash();
    if (is("observe-round")) round_upward();
    if (is("observe-retry")) return FL_RETRY;
    if (is("observe-nothing")) return FL_NOTHING;
    if (is("observe-slow")) usleep(50000);
    if (is("observe-draw")) {
        fl_draw_request request = {.struct_size = sizeof request, .task = FL_TASK_ALL, .rows = 1};
        fl_sequences drawn = {.struct_size = sizeof drawn};
        return host->draw_old(host->context, &request, &drawn, message);
    }
    return FL_OK;
}

static int32_t save(void *self, uint8_t *buffer, uint64_t capacity, uint64_t *needed, fl_message *message) {
    static uint64_t grown = 16;
    (void)self;
    *needed = 16;
    if (is("save-10-gib")) return *needed = UINT64_C(10) << 30, FL_RETRY;
    if (is("save-endless")) return *needed = UINT64_MAX, FL_OK;
    if (is("save-1-gib")) return *needed = UINT64_C(1) << 30, capacity < *needed ? FL_RETRY : FL_OK;
    if (is("save-grows")) return *needed = grown *= 2, FL_RETRY;
    if (is("save-fails")) return fail(message, "nothing to save");
    if (is("save-crash")) crash();
    if (is("save-calls")) kept_host->log(kept_context, FL_LOG_INFO, TEXT("in save"), message);
    if (capacity < 16) return FL_RETRY;
    if (is("save-past")) return memset(buffer, 7, capacity + 4096), FL_OK;
    memset(buffer, 0, 16);
    memcpy(buffer, &batches, sizeof batches);
    return FL_OK;
}

static int32_t load(void *self, const fl_host *host, uint32_t version, const uint8_t *state, uint64_t len,
                    const fl_phase *phase, fl_message *message) {
    uint64_t random[8];
    (void)self, (void)version, (void)len, (void)phase;
    if (is("load-fails")) return fail(message, "I do not like this state");
    if (is("load-crash")) crash();
    if (is("load-retry")) return FL_RETRY;
    if (is("load-draws")) host->random(host->context, random, 8, message);
    memcpy(&batches, state, sizeof batches);
    return FL_OK;
}

static void destroy(void *self) {
    uint64_t random;
    if (is("destroy-crash")) crash();
    if (is("destroy-exit")) exit(0);
    if (is("destroy-calls")) kept_host->random(kept_context, &random, 1, NULL);
    if (is("destroy-loop")) sleep_forever();
    if (is("destroy-twice")) free(self);
    free(self);
}

#define SET(field, text) (d.field = (const uint8_t *)(text), d.field##_len = strlen(text))

FL_EXPORT const fl_descriptor *forgetlab_strategy(void) {
    static fl_descriptor d;
    static char deep[500000];
    d = (fl_descriptor){
        .struct_size = sizeof d,
        .magic = FL_MAGIC,
        .abi_major = FL_ABI_MAJOR,
        .abi_minor = FL_ABI_MINOR,
        .capabilities = FL_NEEDS_OLD_DATA | FL_NEEDS_GENERATION | FL_NEEDS_SCORES | FL_NEEDS_TOKENIZER,
        .state_version = 1,
        .create = create,
        .phase_started = phase_started,
        .next_batch = next_batch,
        .observe = observe,
        .save = save,
        .load = load,
        .destroy = destroy,
    };
    SET(name, "attack");
    SET(version, "0.1");
    SET(summary, "misbehaves");
    SET(settings_schema, "{\"type\":\"object\",\"properties\":{}}");
    if (is("hand-null")) return NULL;
    if (is("hand-misaligned")) return (const fl_descriptor *)((char *)&d + 1);
    if (is("hand-wild")) return (const fl_descriptor *)4096;
    if (is("hand-crash")) crash();
    if (is("hand-loop")) sleep_forever();
    if (is("hand-size-none")) d.struct_size = 0;
    if (is("hand-size-huge")) d.struct_size = UINT64_MAX;
    if (is("hand-magic")) d.magic = 0;
    if (is("hand-major")) d.abi_major = 2;
    if (is("hand-name-null")) d.name = NULL;
    if (is("hand-name-huge")) d.name_len = BIG;
    if (is("hand-name-longer")) d.name_len = 4000;
    if (is("hand-name-path")) SET(name, "../../x");
    if (is("hand-name-escape")) SET(name, "a\033[31m");
    if (is("hand-name-option")) SET(name, "--out");
    if (is("hand-name-taken")) SET(name, "none");
    if (is("hand-name-bytes")) SET(name, "\xff");
    if (is("hand-words-escape")) SET(version, "1\033]0;owned\007"), SET(summary, "\033[31m\r\xe2\x80\xae");
    if (is("hand-schema-huge")) d.settings_schema_len = BIG;
    if (is("hand-schema-longer")) d.settings_schema_len = 1000000;
    if (is("hand-schema-json")) SET(settings_schema, "{");
    if (is("hand-schema-list")) SET(settings_schema, "[1]");
    if (is("hand-schema-deep")) SET(settings_schema, (memset(deep, '[', sizeof deep - 1), deep));
    if (is("hand-schema-type")) SET(settings_schema, "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\",\"minimum\":1e400,\"default\":\"x\"}}}");
    if (is("hand-capabilities")) d.capabilities = UINT64_MAX;
    if (is("hand-no-save")) d.save = NULL;
    if (is("hand-wild-create")) d.create = (fl_create_fn)16;
    return &d;
}
