"""Preferences: what the losses are, what the reference is, and that samples are what the model draws."""

import math
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from families import batch, fill, tiny

from peft_edu import (
    Adapter,
    BitFit,
    FullFineTuning,
    LoRA,
    PrefixTuning,
    PromptTuning,
    PTuningV2,
    attached,
    fit,
    seed,
    trainable,
)
from peft_edu.lab import backbone
from peft_edu.preferences import (
    DPO,
    Samples,
    bradley_terry,
    log_probability,
    log_ratio,
    paired,
    policy_gradient,
    reference_log_probability,
    reward,
    reward_loss,
    sample,
)

METHODS = [
    LoRA(rank=2),
    Adapter(4),
    PrefixTuning(3, hidden=0),
    PTuningV2(3),
    PromptTuning(3),
    BitFit(),
    FullFineTuning(),
]


@pytest.fixture
def gpt2():
    model = tiny("gpt2", dtype=torch.float64)
    fill(model)
    return model.eval()


@pytest.fixture
def pairs():
    """Three pairs of five tokens, of which the first two are the prompt and the last is padding in some."""
    ids = torch.randint(5, 30, (3, 2, 5), generator=torch.Generator().manual_seed(0))
    ids[:, 1, :2] = ids[:, 0, :2]
    mask = torch.ones_like(ids)
    mask[0, 1, 4] = mask[2, 0, 4] = 0
    labels = ids.masked_fill(mask == 0, -100)
    labels[..., :2] = -100
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def move(model):
    """As if it had been trained."""
    with torch.no_grad():
        for i, parameter in enumerate(trainable(model).values()):
            parameter += 0.1 * torch.sin(torch.arange(parameter.numel(), dtype=parameter.dtype) + i).view_as(parameter)


class TestLogProbability:
    def test_it_is_the_sum_over_the_tokens_of_the_answer(self, gpt2, pairs):
        found = log_probability(gpt2, pairs)
        assert found.shape == (3, 2)
        for i, j in ((0, 0), (0, 1), (2, 0)):
            ids = pairs["input_ids"][i, j][: pairs["attention_mask"][i, j].sum()]
            logits = gpt2(ids[None]).logits[0]
            by_hand = sum(logits[t - 1].log_softmax(-1)[ids[t]] for t in range(2, len(ids)))
            assert torch.isclose(found[i, j], by_hand, rtol=0, atol=1e-10)

    def test_of_an_encoder_decoder_the_labels_are_not_shifted(self):
        model = tiny("t5", dtype=torch.float64)
        fill(model)
        asked = batch() | {"labels": torch.tensor([[7, 8, 1], [9, 1, -100]])}
        asked = {name: asked[name][:2] for name in ("input_ids", "attention_mask", "labels")}
        found = log_probability(model.eval(), asked)
        tokens = (asked["labels"] >= 0).sum()
        assert torch.isclose(-found.sum() / tokens, model(**asked).loss, rtol=0, atol=1e-10)

    def test_dropout_is_off_and_the_mode_comes_back(self, pairs):
        model = tiny("gpt2", dtype=torch.float64)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.5
        model.train()
        assert torch.equal(log_probability(model, pairs), log_probability(model, pairs))
        assert model.training

    def test_a_model_without_words_is_refused(self, pairs):
        with pytest.raises(ValueError, match="log p.* is of a language model"):
            log_probability(tiny("gpt2", "classify"), pairs)

    def test_a_model_that_sees_the_answer_is_refused(self, pairs):
        with pytest.raises(ValueError, match="BertForMaskedLM reads a whole text at once: .* from left to right"):
            log_probability(tiny("bert", "language"), pairs)


class TestReference:
    @pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
    def test_it_is_the_model_before_the_method(self, method, gpt2, pairs):
        before = log_probability(gpt2, pairs).detach()
        replace(method).attach(gpt2)
        move(gpt2)
        assert torch.equal(reference_log_probability(gpt2, pairs), before)
        ratio = log_ratio(gpt2, pairs)
        assert ratio.abs().max() > 1e-3 and torch.allclose(ratio, log_probability(gpt2, pairs) - before)

    @pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
    def test_the_gradient_is_that_of_the_policy_alone(self, method, gpt2, pairs):
        """Taking the reference in between changes weights for a moment: the gradient must not see it."""
        before = log_probability(gpt2, pairs).detach()
        replace(method).attach(gpt2)
        move(gpt2)
        DPO(beta=0.5)(gpt2, pairs).backward()
        found = {name: parameter.grad.clone() for name, parameter in trainable(gpt2).items()}
        gpt2.zero_grad()
        margin = log_probability(gpt2, pairs) - before
        (-F.logsigmoid(0.5 * (margin[:, 0] - margin[:, 1])).mean()).backward()
        for name, parameter in trainable(gpt2).items():
            assert torch.allclose(found[name], parameter.grad, rtol=0, atol=1e-12), name

    def test_a_copy_has_a_reference_of_its_own(self, gpt2, pairs):
        before = log_probability(gpt2, pairs).detach()
        LoRA(rank=2).attach(gpt2)
        move(gpt2)
        other = deepcopy(gpt2)
        assert torch.equal(reference_log_probability(other, pairs), before)
        assert torch.equal(log_probability(other, pairs), log_probability(gpt2, pairs))

    def test_without_a_method_there_is_none(self, gpt2, pairs):
        with pytest.raises(ValueError, match="no method is attached"):
            log_ratio(gpt2, pairs)


class TestLosses:
    def test_bradley_terry_by_hand(self):
        scores = torch.tensor([[2.0, 1.0], [0.0, 3.0]])
        by_hand = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(3))) / 2
        assert bradley_terry(scores).item() == pytest.approx(by_hand)

    def test_dpo_starts_at_the_log_of_two(self, gpt2, pairs):
        LoRA(rank=2).attach(gpt2)
        assert DPO(beta=0.1)(gpt2, pairs).item() == pytest.approx(math.log(2))

    def test_dpo_learns_which_answer_is_chosen(self, gpt2, pairs):
        LoRA(rank=4).attach(gpt2)
        history = fit(gpt2, [pairs], steps=30, lr=3e-2, objective=DPO(beta=0.5))
        chosen, rejected = log_ratio(gpt2, pairs).unbind(1)
        assert history.loss.iloc[-1] < 0.4 < history.loss.iloc[0] and (chosen > rejected).all()

    @pytest.mark.parametrize("beta", [0, -1, math.nan, "0.1", True, None])
    def test_a_beta_that_is_none(self, beta):
        with pytest.raises(ValueError, match="beta is .* above 0"):
            DPO(beta)

    @pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
    def test_a_reward_model_learns_which_text_is_chosen(self, family, pairs):
        model = tiny(family, "classify", dtype=torch.float64)
        model.config.num_labels, model.num_labels = 1, 1
        name = "classifier" if hasattr(model, "classifier") else "score"
        setattr(model, name, torch.nn.Linear(getattr(model, name).in_features, 1, dtype=torch.float64))
        model.config.pad_token_id = 0
        LoRA(rank=4).attach(model)
        fit(model, [pairs], steps=30, lr=3e-2, objective=reward_loss)
        scores = reward(model, pairs)
        assert scores.shape == (3, 2) and (scores[:, 0] > scores[:, 1]).all()

    def test_two_numbers_for_a_text_are_no_reward(self, pairs):
        with pytest.raises(ValueError, match='gives .* for 6 texts, and a reward is one number .* head="score"'):
            reward(tiny("bert", "classify"), pairs)

    def test_what_is_no_batch_of_pairs(self, gpt2, pairs):
        LoRA(rank=2).attach(gpt2)
        with pytest.raises(
            ValueError, match=r"scores have the shape \(6,\), but must be \(b, 2\).*task of preferences"
        ):
            DPO()(gpt2, {name: each.flatten(0, 1) for name, each in pairs.items()})
        with pytest.raises(ValueError, match="has input_ids, attention_mask, labels, but policy_gradient needs adv"):
            policy_gradient(gpt2, pairs)

    def test_an_objective_that_gives_no_loss(self, gpt2, pairs):
        LoRA(rank=2).attach(gpt2)
        for wrong, told in (
            (lambda model, batch: log_ratio(model, batch), r"a tensor of shape \(3, 2\)"),
            (lambda model, batch: 0.5, "a float"),
            (lambda model, batch: torch.tensor(0.5), r"a tensor of shape \(\)"),
        ):
            with pytest.raises(ValueError, match=f"gave {told}, but must give one number"):
                fit(gpt2, [pairs], steps=1, lr=1e-3, objective=wrong)

    def test_two_small_batches_are_one_large_one(self, pairs):
        """Each row counts the same, also where the batches of a step are not of one size."""
        ends = []
        for batches, accumulate in (
            ([pairs], 1),
            ([{k: v[:2] for k, v in pairs.items()}, {k: v[2:] for k, v in pairs.items()}], 2),
        ):
            model = tiny("gpt2", dtype=torch.float64)
            fill(model)
            seed(0)
            LoRA(rank=2).attach(model)
            fit(model, batches, steps=3, lr=1e-2, objective=DPO(beta=0.5), accumulate=accumulate)
            ends.append(torch.cat([parameter.flatten() for parameter in trainable(model).values()]))
        assert torch.allclose(*ends, rtol=0, atol=1e-10)


@pytest.fixture(scope="module")
def writer():
    return backbone("tiny-gpt2")


class TestSamples:
    PROMPTS = ("The soup", "The very good soup was", "The bed")

    def ids(self, tokenizer):
        return [tokenizer(prompt)["input_ids"] for prompt in self.PROMPTS]

    def test_each_prompt_has_its_answers_and_the_labels_are_those(self, writer):
        model, tokenizer = writer
        seed(0)
        texts, batch = sample(model, tokenizer, self.ids(tokenizer), tokens=6, each=2)
        assert [text.startswith(self.PROMPTS[i // 2]) for i, text in enumerate(texts)] == [True] * 6
        for i, row in enumerate(batch["labels"]):
            prompt, real = len(self.ids(tokenizer)[i // 2]), int(batch["attention_mask"][i].sum())
            assert (row[:prompt] == -100).all() and (row[real:] == -100).all()
            assert torch.equal(row[prompt:real], batch["input_ids"][i, prompt:real]) and real - prompt <= 6

    def test_they_are_drawn_as_often_as_the_model_says(self, writer):
        """The first token of 2,000 answers, beside its probability."""
        model, tokenizer = writer
        ids = self.ids(tokenizer)[:1]
        seed(0)
        _, batch = sample(model, tokenizer, ids, tokens=1, each=2000)
        drawn = batch["labels"][:, len(ids[0])].bincount(minlength=model.config.vocab_size) / 2000
        said = model(torch.tensor(ids)).logits[0, -1].softmax(-1)
        assert (drawn - said).abs().max() < 4 * math.sqrt(0.25 / 2000)

    def test_an_answer_ends_once(self, writer):
        """What follows the end is no part of the answer; the end itself is."""
        model, tokenizer = writer
        seed(0)
        _, batch = sample(model, tokenizer, self.ids(tokenizer), tokens=60, each=20)
        ends = (batch["labels"] == tokenizer.eos_token_id).sum(1)
        last = batch["labels"].gather(1, batch["attention_mask"].sum(1, keepdim=True) - 1)[:, 0]
        assert ends.max() == 1 and (last[ends == 1] == tokenizer.eos_token_id).all() and ends.any()

    def test_a_left_over_of_padding_changes_no_probability(self, writer):
        """Prompts of different lengths are padded on the left to be gone on with, and on the right to be learned."""
        model, tokenizer = writer
        seed(0)
        _, batch = sample(model, tokenizer, self.ids(tokenizer), tokens=6)
        together = log_probability(model, batch)
        for i in range(3):
            real = int(batch["attention_mask"][i].sum())
            alone = log_probability(model, {name: each[i : i + 1, :real] for name, each in batch.items()})
            assert torch.allclose(alone[0], together[i], rtol=0, atol=1e-9)

    def test_pairs_have_the_better_one_first_and_no_ties(self):
        batch = {"labels": torch.arange(8)[:, None], "input_ids": torch.arange(8)[:, None]}
        found = paired(batch, [1, 0, 0, 1, 2, 2, -1, 3])
        assert found["labels"][..., 0].tolist() == [[0, 1], [3, 2], [7, 6]]

    def test_of_an_encoder_decoder_the_answers_alone_are_labels(self):
        """Its samples are what it says: a probability by hand, token by token."""
        model, tokenizer = backbone("tiny-t5", dtype=torch.float64)
        seed(0)
        texts, batch = sample(model, tokenizer, self.ids(tokenizer), tokens=6, each=2)
        assert [text.startswith(self.PROMPTS[i // 2]) for i, text in enumerate(texts)] == [True] * 6
        asked = [ids[mask == 1].tolist() for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]
        assert asked == [ids for ids in self.ids(tokenizer) for _ in range(2)]
        for i, found in enumerate(log_probability(model, batch)):
            answer, said = batch["labels"][i][batch["labels"][i] >= 0].tolist(), [model.config.decoder_start_token_id]
            by_hand = 0
            for token in answer:
                ids = {"input_ids": torch.tensor([asked[i]]), "decoder_input_ids": torch.tensor([said])}
                by_hand += model(**ids).logits[0, -1].log_softmax(-1)[token]
                said.append(token)
            assert torch.isclose(found, by_hand, rtol=0, atol=1e-9)
            assert texts[i] == tokenizer.decode(asked[i] + answer, skip_special_tokens=True).strip()

    @pytest.mark.parametrize("scores", [[1, 2, 3], [[1, 2], [3, 4]], [1, 2, math.nan, 3], ["a"] * 4, torch.ones(4, 1)])
    def test_scores_that_do_not_fit(self, scores):
        with pytest.raises(ValueError, match="(?s)scores is .*, but must be 4 finite numbers, one for each text"):
            paired({"input_ids": torch.zeros(4, 1)}, scores)

    def test_a_sample_without_another(self):
        with pytest.raises(ValueError, match="3 samples are given, but two make a pair"):
            paired({"input_ids": torch.zeros(3, 1)}, [1, 2, 3])

    @pytest.mark.parametrize("prompts", [[], [[]], [[5], []]])
    def test_nothing_to_go_on_from(self, writer, prompts):
        with pytest.raises(ValueError, match="prompts is .*, but must be lists of token ids, none of them empty"):
            sample(*writer, prompts)

    def test_a_tokenizer_that_cannot_pad(self):
        model, tokenizer = backbone("tiny-gpt2")
        tokenizer.pad_token = None
        with pytest.raises(ValueError, match="sample needs a tokenizer with pad_token, and this one has none"):
            sample(model, tokenizer, [[5]])


class TestPolicyGradient:
    @pytest.fixture
    def policy(self):
        model, tokenizer = backbone("tiny-gpt2")
        LoRA(rank=4, alpha=8).attach(model)
        return model, tokenizer, [tokenizer(f"The {thing}")["input_ids"] for thing in ("soup", "bed", "pool")]

    def test_advantages_are_what_is_better_than_the_group(self, policy):
        model, tokenizer, prompts = policy
        move(model)
        seed(0)
        samples = Samples(
            model, tokenizer, prompts, lambda texts: [len(text) for text in texts], beta=0.5, groups=2, size=3, tokens=5
        )
        (step,) = samples
        earned = torch.tensor([len(text.strip()) for text in tokenizer.batch_decode(
            [ids[mask == 1] for ids, mask in zip(step["input_ids"], step["attention_mask"], strict=True)],
            skip_special_tokens=True)]) - 0.5 * log_ratio(model, step)  # fmt: skip
        by_hand = (earned.view(2, 3) - earned.view(2, 3).mean(1, keepdim=True)).flatten()
        assert torch.allclose(step["advantages"], by_hand.detach(), rtol=0, atol=1e-9)
        assert samples.log[0]["KL"] == pytest.approx(log_ratio(model, step).mean().item())

    def test_its_gradient_is_that_of_the_expected_reward(self, gpt2):
        """One token after one prompt: the expectation can be written down whole, and so can its gradient."""
        LoRA(rank=2).attach(gpt2)
        move(gpt2)
        words = gpt2.config.vocab_size
        worth = torch.sin(torch.arange(words, dtype=torch.float64))
        prompt = torch.tensor([[3, 4]])
        chances = gpt2(prompt).logits[0, -1].softmax(-1)
        (-(chances * worth).sum()).backward()
        exact = {name: parameter.grad.clone() for name, parameter in trainable(gpt2).items()}
        gpt2.zero_grad()
        every = torch.cat([prompt.expand(words, 2), torch.arange(words)[:, None]], 1)
        labels = every.clone()
        labels[:, :2] = -100
        step = {"input_ids": every, "attention_mask": torch.ones_like(every), "labels": labels}
        weights = chances.detach() * words  # each answer once, weighed by how often it is drawn
        baseline = (chances.detach() * worth).sum()
        policy_gradient(gpt2, step | {"advantages": weights * (worth - baseline)}).backward()
        for name, parameter in trainable(gpt2).items():
            assert torch.allclose(parameter.grad, exact[name], rtol=0, atol=1e-12), name

    def test_the_reward_rises_and_kl_is_kept_small_by_its_price(self, policy):
        model, tokenizer, prompts = policy
        found = {}
        for beta in (0.0, 2.0):
            attached(model).detach()
            seed(0)
            LoRA(rank=4, alpha=8).attach(model)
            samples = Samples(model, tokenizer, prompts, lambda texts: [text.count(" good") for text in texts],
                              beta=beta, groups=3, size=8, tokens=5)  # fmt: skip
            fit(model, samples, steps=15, lr=1e-2, schedule="constant", objective=policy_gradient)
            found[beta] = samples.log
        first, last = found[0.0][0], found[0.0][-1]
        assert last["reward"] > first["reward"] + 0.3 and first["KL"] == pytest.approx(0, abs=1e-9)
        assert found[2.0][-1]["KL"] < 0.5 * last["KL"]

    @pytest.mark.parametrize(
        "settings, message",
        [
            ({"beta": -1}, "beta is -1, but must be at least 0"),
            ({"size": 1}, "size is 1, but must be a whole number from 2 on"),
            ({"groups": 4}, "groups is 4, but there are 3 prompts"),
        ],
    )
    def test_settings_that_cannot_be(self, policy, settings, message):
        with pytest.raises(ValueError, match=message):
            Samples(*policy, lambda texts: texts, **settings)

    @pytest.mark.parametrize("given", [[1.0], [1.0, math.nan], [1.0, None], None])
    def test_a_reward_that_misses_a_text(self, policy, given):
        samples = Samples(*policy, lambda texts: given, groups=1, size=2, tokens=2)
        with pytest.raises(ValueError, match="what the reward gave is .*, but must be 2 finite numbers, one for each"):
            fit(policy[0], samples, steps=1, lr=1e-3, objective=policy_gradient)
